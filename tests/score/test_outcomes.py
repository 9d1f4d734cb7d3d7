import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_up_votes import make_votes, noisy
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import log_loss as sklearn_log_loss

from litee.records import CLASSES, Pair, Prediction, VotedPair
from litee.score.outcomes import (
    Truth,
    check_probabilities,
    choices,
    confusion,
    length_rows,
    metric_rows,
    swap_difference,
    swap_flip_rate,
    unswap,
)


def values(p, truth):
    return {name: rows.value() for name, rows in metric_rows(p, truth).items()}


def truth_of(shares, votes):
    return Truth(np.array(shares, dtype=float), np.array(votes, dtype=float))


@st.composite
def samples(draw):
    """Probabilities (exact ties included) and shares made of whole votes."""
    n = draw(st.integers(1, 8))
    raw = draw(hnp.arrays(float, (n, 3), elements=st.floats(0.05, 1)))
    counts = draw(hnp.arrays(int, (n, 3), elements=st.integers(0, 4)))
    counts[:, 0] += counts.sum(axis=1) == 0
    votes = counts.sum(axis=1)
    return raw / raw.sum(axis=1, keepdims=True), truth_of(counts / votes[:, None], votes)


def test_two_pairs_by_hand():
    # pair 1: one vote a, predicted a (.6); pair 2: two votes b and one tie, predicted tie (.5)
    truth = truth_of([[1, 0, 0], [0, 2 / 3, 1 / 3]], [1, 3])
    found = values(np.array([[0.6, 0.1, 0.3], [0.3, 0.2, 0.5]]), truth)
    losses = -np.log(0.6), -(2 * np.log(0.2) + np.log(0.5)) / 3
    assert found["log_loss"] == pytest.approx((losses[0] + 3 * losses[1]) / 4)
    assert found["log_loss_pair"] == pytest.approx(sum(losses) / 2)
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert found["accuracy_pair"] == pytest.approx(1 / 2)
    assert found["accuracy_decisive"] == pytest.approx(1 / 3)  # a right, both b wrong (.3 > .2)
    assert found["accuracy_both_decisive"] == pytest.approx(1)  # only pair 1 has a decisive verdict
    assert found["accuracy_tie_discounted"] == pytest.approx((1 + 0.5 * 2 + 1) / 4)
    assert found["accuracy_one_vs_rest"] == pytest.approx((1 + 1 / 3 + 1 / 3 + 1) / 4)
    assert found["recall_b"] == pytest.approx(0)
    assert found["recall_tie"] == pytest.approx(1)
    assert found["precision_tie"] == pytest.approx(1 / 3)
    assert found["brier"] == pytest.approx(
        (0.16 + 0.01 + 0.09 + 2 * (0.09 + 0.64 + 0.25) + (0.09 + 0.04 + 0.25)) / 4
    )


def test_parity_with_sklearn_on_single_votes():
    rng = np.random.default_rng(3)
    voted, true, _ = make_votes(300, 4)
    p = noisy(true, 0.6, 5)
    labels = np.array([rng.choice(3, p=v.shares) for v in voted])
    found = values(p, truth_of(np.eye(3)[labels], np.ones(300)))
    predicted = p.argmax(axis=1)
    assert found["log_loss"] == pytest.approx(sklearn_log_loss(labels, p, labels=[0, 1, 2]))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    brier = brier_score_loss(labels, p, labels=[0, 1, 2], scale_by_half=False)
    assert found["brier"] == pytest.approx(brier)
    recall = recall_score(labels, predicted, average=None)
    assert [found[f"recall_{c}"] for c in CLASSES] == pytest.approx(list(recall))
    truth = truth_of(np.eye(3)[labels], np.ones(300))
    assert confusion(p, truth).tolist() == sklearn_confusion(labels, predicted).tolist()


def test_repeated_votes_equal_repeated_rows():
    voted, true, _ = make_votes(60, 6)
    p, truth = noisy(true, 0.5, 1), Truth.of(voted)
    rows = [(i, w.class_index) for i, v in enumerate(voted) for w in v.winners]
    flat = truth_of(np.eye(3)[[k for _, k in rows]], np.ones(len(rows)))
    split, together = values(p[[i for i, _ in rows]], flat), values(p, truth)
    for name in set(split) - {"log_loss_pair", "accuracy_pair"}:
        assert split[name] == pytest.approx(together[name]), name


@given(samples())
def test_exchanging_a_and_b_changes_nothing_but_names(sample):
    p, truth = sample
    before = values(p, truth)
    after = values(unswap(p), Truth(unswap(truth.shares), truth.votes))
    renamed = {"recall_a": "recall_b", "recall_b": "recall_a"}
    for name in before:
        if not name.endswith(("_a", "_b")):
            assert after[name] == pytest.approx(before[name]), name
    for name, other in renamed.items():
        assert after[other] == (None if before[name] is None else pytest.approx(before[name]))


@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(sample, random):
    p, truth = sample
    order = list(range(len(p)))
    random.shuffle(order)
    before = values(p, truth)
    after = values(p[order], Truth(truth.shares[order], truth.votes[order]))
    for name, value in before.items():
        assert after[name] == (None if value is None else pytest.approx(value))


@given(samples())
def test_bounds(sample):
    p, truth = sample
    for name, value in values(p, truth).items():
        top = {"brier": 2.0, "log_loss": np.inf, "log_loss_pair": np.inf}.get(name, 1.0)
        assert value is None or -1e-12 <= value <= top + 1e-12, name


@given(samples())
def test_own_shares_are_the_best_prediction(sample):
    p, truth = sample
    best = values(truth.shares, truth)
    assert best["log_loss"] <= values(p, truth)["log_loss"] + 1e-12
    assert best["brier"] <= values(p, truth)["brier"] + 1e-12


def test_perfect_and_uniform_predictors():
    truth = truth_of(np.eye(3), [2, 1, 5])
    perfect, flat = values(np.eye(3), truth), values(np.full((3, 3), 1 / 3), truth)
    assert perfect["log_loss"] == 0 and perfect["brier"] == 0
    assert perfect["accuracy"] == perfect["accuracy_decisive"] == perfect["recall_tie"] == 1
    assert flat["log_loss"] == pytest.approx(np.log(3))
    assert flat["accuracy"] == pytest.approx(1 / 3) and flat["accuracy_decisive"] == 0.5


def test_zero_probability_on_a_vote_is_no_number_and_says_why():
    rows = metric_rows(np.array([[0.0, 1.0, 0.0]]), truth_of([[1, 0, 0]], [1]))
    assert rows["log_loss"].value() is None and "probability 0" in rows["log_loss"].reason
    assert rows["accuracy"].value() == 0


def test_no_decisive_votes_is_no_number():
    rows = metric_rows(np.array([[0.2, 0.2, 0.6]]), truth_of([[0, 0, 1]], [2]))
    assert rows["accuracy_decisive"].value() is None
    assert rows["accuracy_decisive"].reason == "no decisive votes (a or b)"


def test_rounding_noise_does_not_decide_a_tie():
    p = np.array([[0.4, 0.4 + 1e-13, 0.2 - 1e-13]])
    assert choices(p).tolist() == [[0.5, 0.5, 0.0]]


def test_choice_agrees_with_the_record():
    for p in ((0.2, 0.5, 0.3), (0.1, 0.2, 0.7), (0.6, 0.3, 0.1)):
        k = Prediction("1", p).winner.class_index
        assert choices(np.array([p]))[0, k] == 1


@given(samples())
def test_swap_metrics(sample):
    p, _ = sample
    assert swap_flip_rate(p, unswap(p)) == 0 and swap_difference(p, unswap(p)) == 0
    always_first = np.tile([0.6, 0.3, 0.1], (len(p), 1))
    assert swap_flip_rate(always_first, always_first) == 1
    assert swap_difference(always_first, always_first) == pytest.approx(0.3)


def test_swap_flips_counted_by_hand():
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.5, 0.4, 0.1]])
    given_back = np.array([[0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.1, 0.4, 0.5]])
    assert swap_flip_rate(p, given_back) == 0.5
    assert swap_difference(p, given_back) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([[0.5, 0.5]], "shape"),
        ([[0.5, 0.6, -0.1]], "finite and >= 0"),
        ([[np.nan, 0.5, 0.5]], "finite and >= 0"),
        ([[0.5, 0.5, 0.5]], "sum to 1"),
    ],
)
def test_bad_probabilities_are_refused(p, message):
    with pytest.raises(ValueError, match=message):
        check_probabilities(p, 1)


def test_truth_of_voted_pairs():
    pair = Pair("1", ("q",), ("x",), ("y",))
    truth = Truth.of([VotedPair(pair, (0.5, 0.25, 0.25), 4)])
    assert truth.shares.tolist() == [[0.5, 0.25, 0.25]] and truth.votes.tolist() == [4.0]
    assert Truth.of([]).shares.shape == (0, 3)


def test_accuracy_by_the_length_of_the_voted_answer_by_hand():
    shares = np.array([[1.0, 0, 0], [0.25, 0.75, 0], [0, 1.0, 0], [0, 0, 1.0]])
    truth = Truth(shares, np.array([1.0, 4.0, 2.0, 3.0]))
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    longer = np.array([-1, 1, 1, 1])
    rows = length_rows(p, truth, longer)
    # for the longer: 1 vote on pair 2, right; for the shorter: 1 on pair 1, right, 3 on pair 2,
    # wrong, 2 on pair 3, right between A and B
    assert rows["accuracy_longer_won"].value() == 1.0
    assert rows["accuracy_shorter_won"].value() == pytest.approx((1 + 0 + 2) / 6)
    equal = length_rows(p, truth, np.zeros(4, int))
    assert equal["accuracy_longer_won"].value() is None
    assert equal["accuracy_shorter_won"].reason == "nobody voted for the shorter answer"


def test_accuracy_by_length_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    p, shares = (rng.dirichlet(np.ones(3), 20) for _ in range(2))
    longer = rng.integers(-1, 2, 20)
    one = length_rows(p, Truth(shares, np.ones(20)), longer)
    back = [1, 0, 2]
    two = length_rows(p[:, back], Truth(shares[:, back], np.ones(20)), -longer)
    for name, rows in one.items():
        assert rows.value() == pytest.approx(two[name].value())
