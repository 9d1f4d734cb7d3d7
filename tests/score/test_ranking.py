import json
import re
from dataclasses import replace

import evalica
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from votes_on_disk import DATA, read_voted

from litee.collect.pairs import gather
from litee.errors import ConfigError, InputError
from litee.records import Outcome, Pair, Vote, VotedPair
from litee.score.ranking import bouts_of, rank
from litee.score.ranking_page import RankingPage, cautions, headline, render_ranking
from litee.score.strengths import MODELS, fit_strengths
from litee.score.style import fit_styled, style_counts, style_differences

TRUE = np.array([1.0, 0.4, 0.0, -0.5, -0.9])


def bouts(seed=0, n=900, systems=5):
    """Single votes between systems of known strength, with ties."""
    rng = np.random.default_rng(seed)
    voted, groups = [], []
    for k in range(n):
        i, j = rng.choice(systems, 2, replace=False)
        logits = np.array([(TRUE[i] - TRUE[j]) / 2, (TRUE[j] - TRUE[i]) / 2, -0.3])
        p = np.exp(logits) / np.exp(logits).sum()
        winner = (Outcome.A, Outcome.B, Outcome.TIE)[rng.choice(3, p=p)]
        text = "x" * int(rng.integers(1, 50)), "x" * int(rng.integers(1, 50))
        pair = Pair(f"p{k}", ("q",), text[:1], text[1:], f"m{i}", f"m{j}", "s")
        shares = tuple(float(winner.class_index == c) for c in range(3))
        voted.append(VotedPair(pair, shares, 1, (winner,)))
        groups.append(k % 30)
    return voted, groups


def library_input(voted):
    a = [v.pair.model_a for v in voted for _ in v.winners]
    b = [v.pair.model_b for v in voted for _ in v.winners]
    kinds = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw)
    return a, b, [kinds[w.class_index] for v in voted for w in v.winners]


def log_scores(result, names):
    scores = np.log(np.array([result.scores[name] for name in names]))
    return scores - scores.mean()


@pytest.mark.parametrize(("model", "library"), [("bradley-terry", evalica.bradley_terry),
                                                ("davidson", evalica.newman)])  # fmt: skip
def test_strengths_equal_evalica(model, library):
    voted, groups = bouts()
    found = rank(bouts_of(voted, groups), model=model, resamples=10)
    other = library(*library_input(voted), tolerance=1e-12, limit=100_000)
    names = [s.name for s in found.standings]
    mine = np.array([s.elo.value for s in found.standings])
    mine = (mine - mine.mean()) * np.log(10) / 400
    assert mine == pytest.approx(log_scores(other, names), abs=1e-6)


def test_strengths_equal_arena_rank():
    pytest.importorskip("arena_rank", reason="arena-rank (JAX) is not installed")
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    voted, groups = bouts()
    label = {0: "model_a", 1: "model_b", 2: "tie"}
    frame = pd.DataFrame(
        [(v.pair.model_a, v.pair.model_b, label[v.winners[0].class_index]) for v in voted],
        columns=["model_a", "model_b", "winner"],
    )
    data = PairDataset.from_pandas(frame)
    result = BradleyTerry(len(data.competitors)).compute_ratings_and_cis(data)
    theirs = dict(zip(result["competitors"], np.asarray(result["ratings"]), strict=True))
    found = rank(bouts_of(voted, groups), resamples=10)
    mine = np.array([s.elo.value for s in found.standings])
    other = np.array([theirs[s.name] for s in found.standings])
    scale = np.log(10) / 400
    assert (mine - mine.mean()) * scale == pytest.approx((other - other.mean()) * scale, abs=1e-4)


def log_likelihood(model, theta, tie, outcomes, pairs):
    gap = theta[pairs[:, 0]] - theta[pairs[:, 1]]
    if model == "davidson":
        weights = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full_like(gap, np.exp(tie))], 1)
        p = weights / weights.sum(axis=1, keepdims=True)
    else:
        a, b = (1 / (1 + np.exp(-(s * gap - tie))) for s in (1, -1))
        p = np.stack([a, b, 1 - a - b], 1)
    return float((outcomes * np.log(p)).sum())


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_models_with_ties_maximise_their_likelihood(model):
    rng = np.random.default_rng(1)
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [0, 3]])
    outcomes = rng.integers(1, 30, (5, 3)).astype(float)
    found = fit_strengths(outcomes[None], pairs, 4, model)

    def loss(x):
        return -log_likelihood(model, np.append(x[:3], -x[:3].sum()), x[3], outcomes, pairs)

    start = np.append(np.zeros(3), 0.5)
    exact = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000}
    best = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options=exact)
    assert found.theta[0, :3] == pytest.approx(best.x[:3], abs=1e-5)
    assert found.tie[0] == pytest.approx(best.x[3], abs=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(MODELS))
def test_a_batch_gives_what_each_would_alone_and_turning_a_pair_changes_nothing(seed, model):
    rng = np.random.default_rng(seed)
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    outcomes = rng.integers(1, 9, (4, 3, 3)).astype(float)
    batch = fit_strengths(outcomes, pairs, 3, model)
    alone = np.concatenate([fit_strengths(o[None], pairs, 3, model).theta for o in outcomes])
    assert batch.theta == pytest.approx(alone, abs=1e-6)
    turned = fit_strengths(outcomes[:, :, [1, 0, 2]], pairs[:, ::-1], 3, model)
    assert turned.theta == pytest.approx(batch.theta, abs=1e-6)


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_without_ties_every_model_is_bradley_terrys(model):
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    outcomes = np.array([[[5.0, 1, 0], [4, 2, 0], [3, 3, 0]], [[9.0, 1, 0], [1, 2, 0], [3, 8, 0]]])
    plain = fit_strengths(outcomes, pairs, 3).theta
    found = fit_strengths(outcomes, pairs, 3, model)
    assert found.theta == pytest.approx(plain, abs=1e-6) and (found.tie <= 0).all()


def test_rao_kupper_with_a_single_tie():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    none = np.array([[50.0, 10, 0], [40, 20, 0], [30, 30, 0]])
    one = none + np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, 0]])
    found = fit_strengths(np.stack([none, one]), pairs, 3, "rao-kupper")

    def loss(x):
        theta = np.append(x[:2], -x[:2].sum())
        return -log_likelihood("rao-kupper", theta, np.exp(x[2]), one, pairs)

    exact = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20_000}
    best = scipy.optimize.minimize(loss, [0, 0, -2], method="Nelder-Mead", options=exact).x
    assert found.theta[1, :2] == pytest.approx(best[:2], abs=1e-6)
    assert found.tie == pytest.approx([0, np.exp(best[2])], abs=1e-7)


def test_rows_that_take_long_do_not_spoil_the_others():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    usual = np.array([[5.0, 1, 0], [4, 2, 0], [3, 3, 0]])
    never_lost = np.array([[5.0, 0, 0], [4, 0, 0], [3, 3, 0]])
    start = fit_strengths(usual[None], pairs, 3)
    found = fit_strengths(np.stack([never_lost, usual, never_lost]), pairs, 3, start=start).theta
    assert found[1] == pytest.approx(start.theta[0], abs=1e-7)
    assert found[0, 0] - found[0, 1] > 10 and found[0, 1] == pytest.approx(found[0, 2], abs=1e-5)


def test_two_systems_by_hand():
    # 3 wins, 1 loss: odds 3; the difference is ln 3
    theta = fit_strengths(np.array([[[3.0, 1.0, 0.0]]]), np.array([[0, 1]]), 2).theta[0]
    assert theta[0] - theta[1] == pytest.approx(np.log(3), abs=1e-6)


def test_ranks_and_intervals_hold_the_truth():
    voted, groups = bouts(n=3000)
    found = rank(bouts_of(voted, groups), model="davidson", resamples=300)
    assert [s.name for s in found.standings] == [f"m{k}" for k in range(5)]
    for k, s in enumerate(found.standings):
        assert s.best_rank <= k + 1 <= s.worst_rank
        assert s.elo.low < 1000 + (TRUE[k] - TRUE.mean()) * 400 / np.log(10) < s.elo.high
    assert len(found.neighbours) == 4
    json.dumps(found.to_json(), allow_nan=False)


def test_a_system_that_never_lost_is_marked():
    pairs = [Pair(f"{k}", ("q",), ("x",), ("y",), "best", f"m{k % 2}", "s") for k in range(6)]
    voted = [VotedPair(p, (1.0, 0.0, 0.0), 1, (Outcome.A,)) for p in pairs]
    inner = Pair("i", ("q",), ("x",), ("y",), "m0", "m1", "s")
    voted.append(VotedPair(inner, (0.0, 0.0, 1.0), 1, (Outcome.TIE,)))
    found = rank(bouts_of(voted, list(range(7))), resamples=20)
    assert found.standings[0].name == "best" and "no chain" in found.standings[0].warning
    assert not found.standings[1].warning


def test_unusable_pairs_are_counted():
    voted, groups = bouts(n=40)
    nameless = Pair("n", ("q",), ("x",), ("y",))
    same = Pair("s", ("q",), ("x",), ("y",), "m1", "m1")
    extra = [VotedPair(p, (1.0, 0.0, 0.0), 1, (Outcome.A,)) for p in (nameless, same)]
    found = bouts_of([*voted, *extra], [*groups, 0, 0])
    assert (found.without_name, found.against_itself, len(found.counts)) == (1, 1, 40)
    with pytest.raises(InputError, match="two named systems"):
        bouts_of(extra, [0, 0])
    with pytest.raises(ConfigError, match="unknown model"):
        rank(found, model="elo")


def test_verdicts_replace_votes():
    voted, groups = bouts(n=60)
    verdicts = np.tile([0.0, 0.0, 1.0], (60, 1))
    verdicts[0] = np.nan
    found = rank(bouts_of(voted, groups, verdicts), resamples=10)
    assert found.pairs == 59
    assert [s.elo.value for s in found.standings] == pytest.approx([1000] * 5, abs=1e-6)


def test_style_is_counted_outside_code():
    assert style_counts("# a\n\n1. **b** c\n* d\n```\n# no\n- no\n```")[1:] == (2, 1, 1)
    pair = Pair("p", ("q",), ("- a\n- b",), ("- a",))
    assert style_differences([pair])[0].round(3).tolist() == [0.4, 0.333, 0, 0]


def test_style_control_finds_the_length_effect_and_equals_plain_without_terms():
    rng = np.random.default_rng(0)
    m = 6000
    systems = np.array([rng.choice(3, 2, replace=False) for _ in range(m)])
    terms = rng.normal(size=(m, 1)) + 0.5 * (systems[:, :1] == 0) - 0.5 * (systems[:, 1:] == 0)
    theta = np.array([0.0, 0.5, -0.5])
    logit = theta[systems[:, 0]] - theta[systems[:, 1]] + 0.8 * terms[:, 0]
    shares = (rng.random(m) < 1 / (1 + np.exp(-logit))).astype(float)
    found = fit_styled(shares, systems, terms, np.ones(m), 3)
    assert found.coefficients[0] == pytest.approx(0.8, abs=0.1)
    assert found.theta == pytest.approx(theta, abs=0.12)
    plain = fit_styled(shares, systems, np.zeros((m, 0)), np.ones(m), 3)
    outcomes = np.zeros((3, 3))
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    for (i, j), share in zip(systems, shares, strict=True):
        row = [[0, 1], [0, 2], [1, 2]].index(sorted((int(i), int(j))))
        outcomes[row, 0 if (share == 1) == (i < j) else 1] += 1
    assert plain.theta == pytest.approx(fit_strengths(outcomes[None], pairs, 3).theta[0], abs=1e-4)
    assert plain.theta[0] > found.theta[0]  # system 0 owed its place to length


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mt_bench_human", "guanaco_vicuna80", "pandalm", "llmfao"])
def test_real_votes_equal_evalica(name):
    voted = read_voted(name)
    groups = np.unique([v.pair.prompt[0] for v in voted], return_inverse=True)[1].tolist()
    found = rank(bouts_of(voted, groups), resamples=2)
    other = evalica.bradley_terry(*library_input(voted), tolerance=1e-12, limit=100_000)
    mine = np.array([s.elo.value for s in found.standings])
    mine = (mine - mine.mean()) * np.log(10) / 400
    names = [s.name for s in found.standings]
    assert mine == pytest.approx(log_scores(other, names), abs=1e-4)


@pytest.mark.real_data
def test_the_command_ranks_real_votes(tmp_path):
    from litee.cli.rank import rank as command

    path = DATA / "votes/mt_bench_human.jsonl.gz"
    if not path.exists():
        pytest.skip(f"real votes are not here: {path.name}")
    command([str(path)], style=True, resamples=50, out=tmp_path)
    record = json.loads((tmp_path / "ranking.json").read_text(encoding="utf-8"))
    assert record["standings"][0]["system"] == "gpt-4" and record["style"]["length"]["value"]
    page = (tmp_path / "ranking.html").read_text(encoding="utf-8")
    assert "gpt-4 comes first among 6 systems" in page and "At equal style" in page


def test_the_page_shows_what_was_ranked_and_escapes_names():
    voted, groups = bouts(n=300)
    ranking = rank(bouts_of(voted, groups), style=True, resamples=50)
    evil = replace(ranking.standings[0], name="<script>x</script>")
    page = render_ranking(
        RankingPage(
            replace(ranking, standings=(evil, *ranking.standings[1:])), inputs={"a/v": "12"}
        )
    )
    assert "<script>" not in page and "&lt;script&gt;" in page and "http:" not in without_svg(page)
    assert "One against one" in page and "What style is worth" in page and "v <code>12" in page
    plain = render_ranking(RankingPage(rank(bouts_of(voted, groups), resamples=50), judged=True))
    for m in ranking.meetings:
        assert f"{100 * m.share:.0f} %<small>{m.votes:.0f}</small>" in plain
    assert "equal style" not in plain and "These are a judge&#39;s verdicts" in plain


def without_svg(page):
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_the_page_warns():
    pairs = [Pair(f"{k}", ("q",), ("x",), ("y",), "best", f"m{k % 2}", "s") for k in range(6)]
    voted = [VotedPair(p, (1.0, 0.0, 0.0), 1, (Outcome.A,)) for p in pairs]
    inner = Pair("i", ("q",), ("x",), ("y",), "m0", "m1", "s")
    voted.append(VotedPair(inner, (0.0, 0.0, 1.0), 1, (Outcome.TIE,)))
    page = RankingPage(rank(bouts_of(voted, list(range(7))), resamples=20))
    found = " ".join(cautions(page))
    assert "Only 7 prompts" in found and "No finite strength for best" in found
    assert "Fewer than 30 votes on best, m" in found
    assert "unbounded" in render_ranking(page) and "no finite value" in headline(page)


def test_meetings_by_hand():
    a = Pair("1", ("q",), ("x",), ("y",), "u", "v", "s")
    b = Pair("2", ("q",), ("x",), ("y",), "v", "u", "s")
    voted = [VotedPair(a, (0.5, 0.0, 0.5), 2), VotedPair(b, (1.0, 0.0, 0.0), 1)]
    # u wins one and ties one of three
    (met,) = rank(bouts_of(voted, [0, 1]), resamples=20).meetings
    assert (met.first, met.second, met.votes) == ("u", "v", 3.0)
    assert met.share == pytest.approx(1.5 / 3)


def test_the_command_wants_a_folder(tmp_path):
    from litee.cli.rank import rank as command

    with pytest.raises(ConfigError, match="folder"):
        command(["votes.jsonl"], out=tmp_path / "ranking.json")


def test_a_system_that_many_resamples_leave_out_has_no_interval():
    """C met B on one prompt only; without that prompt nothing is known of it."""
    votes = []
    for k in range(60):
        pair = Pair(f"p{k}", (f"q{k}",), ("x",), ("y",), "A", "B")
        votes.append(Vote(f"v{k}", pair, Outcome.A if k % 3 else Outcome.B))
    pair = Pair("c", ("only prompt",), ("x",), ("y",), "C", "B")
    votes += [Vote(f"w{k}", pair, Outcome.A if k < 18 else Outcome.B) for k in range(20)]
    voted = gather(votes)
    found = rank(bouts_of(voted, range(len(voted))), resamples=300)
    by_name = {s.name: s for s in found.standings}
    assert by_name["C"].elo.low is None and by_name["C"].win_rate.low is None
    assert by_name["A"].elo.low < by_name["A"].elo.value < by_name["A"].elo.high
    assert by_name["C"].best_rank == 1 and by_name["C"].worst_rank == 3  # anything may be true
