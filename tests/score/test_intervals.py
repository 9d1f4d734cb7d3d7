import numpy as np
import pytest
from made_up_votes import make_votes, noisy
from scipy import stats

from litee.records import Score
from litee.score.intervals import GroupBootstrap, mean_over_strata
from litee.score.outcomes import Rows, Truth, metric_rows
from litee.score.reliability import ece_rows


@pytest.fixture(scope="module")
def sample():
    voted, true, groups = make_votes(120, 7, prompts=15)
    truth = Truth.of(voted)
    systems = {name: noisy(true, s, k) for k, (name, s) in enumerate((("good", 0.3), ("bad", 1)))}
    rows = {}
    for name, p in systems.items():
        rows |= {(name, m): r for m, r in metric_rows(p, truth).items()}
        rows[name, "ece"] = ece_rows(p, truth)
    return rows, np.array(groups)


def naive_draws(rows, groups, seed, resamples):
    """The same resamples, one after another, each by looking its pairs up again."""
    names = np.unique(groups)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    found = []
    for one in drawn:
        index = np.concatenate([np.flatnonzero(groups == names[g]) for g in one])
        picked = Rows(rows.numerator[index], rows.denominator[index])
        found.append(picked.value())
    return np.array(found, dtype=float)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy_decisive", "recall_tie", "ece"])
def test_matches_a_naive_loop(sample, metric):
    rows, groups = sample
    key = ("good", metric)
    resampled = GroupBootstrap(groups, seed=5, resamples=60).resample({key: rows[key]})
    naive = naive_draws(rows[key], groups, 5, 60)
    assert resampled.draws[key] == pytest.approx(naive, rel=1e-9)
    score = resampled.score(key)
    low, middle, high = np.percentile(naive, [2.5, 50, 97.5])
    shift = score.value - middle if metric == "ece" else 0
    assert (score.low, score.high) == pytest.approx((low + shift, high + shift))


def test_paired_difference(sample):
    rows, groups = sample
    bootstrap = GroupBootstrap(groups, seed=1, resamples=80)
    first, second = ("good", "log_loss"), ("bad", "log_loss")
    found = bootstrap.resample(rows).difference(first, second)
    naive = naive_draws(rows[first], groups, 1, 80) - naive_draws(rows[second], groups, 1, 80)
    assert found.value == pytest.approx(rows[first].value() - rows[second].value())
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(naive, [2.5, 97.5])))
    assert found.high < 0
    same = bootstrap.resample(rows).difference(first, first)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_blocks_do_not_change_the_result(sample, monkeypatch):
    rows, groups = sample
    whole = GroupBootstrap(groups, seed=3, resamples=50).resample(rows)
    monkeypatch.setattr("litee.score.intervals._BLOCK", 7 * len(set(groups)))
    parts = GroupBootstrap(groups, seed=3, resamples=50).resample(rows)
    for key in rows:
        assert parts.draws[key] == pytest.approx(whole.draws[key], nan_ok=True)


def test_close_to_scipy_and_to_theory():
    values = np.random.default_rng(0).normal(1, 1, 400)
    rows = Rows(values, np.ones(400))
    ours = GroupBootstrap(np.arange(400), seed=0).resample({"mean": rows}).score("mean")
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", random_state=1, n_resamples=2000
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    half = 1.96 * values.std() / 20
    assert ours.high - ours.low == pytest.approx(2 * half, rel=0.08)


def test_votes_of_one_prompt_are_not_independent():
    rows = Rows(np.repeat(np.arange(80) % 2, 10).astype(float), np.ones(800))
    by_prompt = GroupBootstrap(np.repeat(np.arange(80), 10), seed=0).resample({"x": rows})
    by_row = GroupBootstrap(np.arange(800), seed=0).resample({"x": rows})
    wide, narrow = by_prompt.score("x"), by_row.score("x")
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(10**0.5, rel=0.15)


def test_one_group_has_no_interval(sample):
    rows, _ = sample
    score = GroupBootstrap([4] * 120, seed=0).resample(rows).score(("good", "accuracy"))
    assert score.value is not None and score.low is None and score.high is None


def test_missing_values_keep_their_reason():
    rows = {
        "none": Rows(np.zeros(2), np.zeros(2), "no decisive votes"),
        "infinite": Rows(np.array([np.inf, 1.0]), np.ones(2), "probability 0"),
        "fine": Rows(np.ones(2), np.ones(2)),
    }
    resampled = GroupBootstrap([0, 1], seed=0).resample(rows)
    assert resampled.score("none").reason == "no decisive votes"
    assert resampled.score("infinite").value is None
    assert resampled.difference("fine", "infinite").reason == "probability 0"
    assert resampled.score("fine").value == 1


def test_metric_that_is_mostly_undefined_on_resamples_has_no_interval():
    rows = {"rare": Rows(np.eye(10)[0], np.eye(10)[0])}
    score = GroupBootstrap(range(10), seed=0).resample(rows).score("rare")
    assert score.value == 1 and score.low is None


def test_seed_decides(sample):
    rows, groups = sample
    key = ("bad", "log_loss")
    one, again, other = (
        GroupBootstrap(groups, seed=s).resample(rows).score(key) for s in (0, 0, 1)
    )
    assert one == again and one != other


def test_wrong_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="2 rows for 3 pairs"):
        GroupBootstrap([0, 1, 2], seed=0).resample({"x": Rows(np.ones(2), np.ones(2))})


def two_strata(one, two, *, resamples=400):
    bootstraps = [
        GroupBootstrap(np.arange(len(values)), seed=(3, k), resamples=resamples)
        for k, values in enumerate((one, two))
    ]
    parts = [
        bootstrap.resample({"loss": Rows(np.array(values), np.ones(len(values)))})
        for bootstrap, values in zip(bootstraps, (one, two), strict=True)
    ]
    return bootstraps, parts


def test_the_mean_over_strata_resamples_each_by_itself():
    one, two = [1.0, 3.0], [10.0, 20.0, 15.0]
    bootstraps, parts = two_strata(one, two)
    score = mean_over_strata(parts, "loss")
    assert score.value == pytest.approx((2 + 15) / 2)
    draws = [
        np.concatenate([counts @ values / counts.sum(1) for counts in bootstrap.counts()])
        for bootstrap, values in zip(bootstraps, (one, two), strict=True)
    ]
    assert len(draws[0]) == 400 and abs(np.corrcoef(draws)[0, 1]) < 0.2  # drawn apart
    ends = np.percentile((draws[0] + draws[1]) / 2, [2.5, 97.5])
    assert (score.low, score.high) == pytest.approx(tuple(ends))


def test_a_mean_over_strata_needs_all_of_them_and_one_of_one_prompt_has_no_interval():
    _, (one, two) = two_strata([1.0, 3.0], [np.inf, 2.0])
    nothing = mean_over_strata([one, two], "loss")  # one's mean would not be that of both
    assert nothing.value is None and nothing.reason
    assert mean_over_strata([one], "loss").value == 2.0
    assert mean_over_strata([], "loss").value is None
    _, parts = two_strata([1.0, 3.0], [4.0])
    assert mean_over_strata(parts, "loss") == Score(3.0)


def test_a_difference_of_absolute_sums_is_not_against_the_smaller_one():
    """A resample's ECE is too large where there is none, and much less so where there is much."""
    rng = np.random.default_rng(0)
    middles, values = [], []
    for seed in range(20):
        gaps = rng.normal(0, 0.5, (100, 10)) * (rng.integers(0, 10, (100, 1)) == np.arange(10))
        bad = gaps + 0.3 * (gaps != 0)
        rows = {"good": Rows(gaps, np.ones(100)), "bad": Rows(bad, np.ones(100))}
        found = GroupBootstrap(np.arange(100), seed=seed, resamples=300).resample(rows)
        score = found.difference("good", "bad")
        values.append(score.value)
        middles.append((score.low + score.high) / 2)
    assert np.mean(middles) == pytest.approx(np.mean(values), abs=0.02)
