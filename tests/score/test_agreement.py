import gzip
import json
import math
from dataclasses import replace

import krippendorff
import numpy as np
import pytest
from votes_on_disk import DATA, read_voted

from litee.errors import ConfigError, InputError
from litee.records import Outcome, Pair, VotedPair
from litee.score.agreement import agree_with_ratings, agree_with_votes
from litee.score.agreement_page import (
    PageInput,
    agreement_table,
    cautions,
    headline,
    render_page,
)
from litee.score.agreement_study import mean_over
from litee.score.beside_raters import beside_raters
from litee.score.pair_table import read_pair_metrics
from litee.score.rated import Metric, Rated, krippendorff_alpha, reliability, within_prompt_pairs
from litee.score.score_table import Choice, Keys, read_rated


def rated_answers(seed=0, prompts=40, systems=3):
    """Two raters, a good metric, a noisy one, one that is missing on every tenth row."""
    rng = np.random.default_rng(seed)
    n = prompts * systems
    quality = rng.normal(size=n)
    ratings = (quality[:, None] + 0.7 * rng.normal(size=(n, 2))).round()
    holes = np.where(np.arange(n) % 10 == 0, np.nan, quality)
    metrics = (
        Metric("good", quality),
        Metric("noise", rng.normal(size=n)),
        Metric("turned", -quality, lower_is_better=True),
        Metric("holes", holes, {"time-out": int(np.isnan(holes).sum())}),
        Metric("flat", np.zeros(n)),
    )
    return Rated(
        np.repeat(np.arange(prompts), systems),
        np.tile(np.arange(systems), prompts),
        tuple("xyz"[:systems]),
        ratings,
        rng.integers(20, 90, n).astype(float),
        metrics,
    )


@pytest.fixture(scope="module")
def study():
    return agree_with_ratings(rated_answers(), seed=0, resamples=200, title="Made up")


def test_good_metrics_come_first_and_a_turned_sign_changes_nothing(study):
    names = [m.name for m in study.metrics]
    assert set(names[:3]) == {"good", "turned", "holes"}
    by_name = {m.name: m for m in study.metrics}
    for figure, score in by_name["good"].scores.items():
        assert by_name["turned"].scores[figure].value == pytest.approx(score.value), figure


def test_chance_and_constant_metrics_are_at_chance(study):
    assert study.chance["pairwise_accuracy"].value == pytest.approx(1 / 3)
    assert study.chance["decisive_accuracy"].value == pytest.approx(0.5)
    flat = next(m for m in study.metrics if m.name == "flat")
    assert flat.score("decisive_accuracy").value == pytest.approx(0.5)
    assert flat.score("spearman_item").value is None
    assert flat.score("spearman_item").reason


def test_unscored_rows_keep_their_reason_and_are_left_out(study):
    holes = next(m for m in study.metrics if m.name == "holes")
    assert holes.unscored == {"time-out": 12} and holes.scored == 108
    assert holes.pairs_scored < study.pairs
    compared = next(c for c in study.comparisons if {c.better, c.worse} == {"good", "holes"})
    assert compared.difference.value == pytest.approx(0, abs=1e-12)  # equal on common pairs


def test_the_intervals_hold_the_estimate(study):
    checked = 0
    for metric in study.metrics:
        for figure, score in metric.scores.items():
            if score.low is not None and score.value is not None:
                assert score.low <= score.value + 0.1, figure
                assert score.high >= score.value - 0.1, figure
                checked += 1
    assert checked > 60


def test_the_same_seed_gives_the_same_study(study):
    again = agree_with_ratings(rated_answers(), seed=0, resamples=200, title="Made up")
    assert again.to_json() == study.to_json()


def test_json_has_no_nan(study):
    assert json.loads(json.dumps(study.to_json(), allow_nan=False))["kind"] == "ratings"


def test_several_criteria_are_averaged(study):
    means, tables = mean_over({"one": study, "two": study}, ["spearman_item"])
    value = study.metrics[0].score("spearman_item").value
    assert means[f"{study.metrics[0].name}.spearman_item"] == pytest.approx(value, abs=1e-3)
    assert tables["spearman_item"][0]["one"] == tables["spearman_item"][0]["two"]
    assert tables["spearman_item"][-1]["metric"] == "people"


def test_pairs_within_prompts():
    first, second = within_prompt_pairs(np.array([3, 1, 3, 1, 3]))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [
        (0, 2), (0, 4), (1, 3), (2, 4),
    ]  # fmt: skip


def test_reliability_of_the_mean_is_spearman_brown():
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 3))
    found = reliability(ratings)
    assert found.mean_correlation == pytest.approx(0.5, abs=0.03)
    assert found.of_mean == pytest.approx(0.75, abs=0.03)
    assert reliability(ratings[:, :1]) is None
    assert reliability(np.column_stack([ratings[:, 0], -ratings[:, 0]])).of_mean is None


@pytest.mark.parametrize("level", ["ordinal", "interval"])
def test_alpha_equals_the_library_with_holes(level):
    rng = np.random.default_rng(4)
    ratings = rng.integers(1, 6, (200, 4)).astype(float)
    ratings[:, 1] = np.clip(ratings[:, 0] + rng.integers(-1, 2, 200), 1, 5)
    ratings[rng.random((200, 4)) < 0.3] = np.nan
    library = krippendorff.alpha(reliability_data=ratings.T, level_of_measurement=level)
    assert krippendorff_alpha(ratings, level) == pytest.approx(library)


def votes(outcomes):
    for k, winners in enumerate(outcomes):
        pair = Pair(f"p{k}", (f"question {k}",), ("short",), ("a longer one",), "m1", "m2", "s")
        shares = tuple(sum(w.class_index == c for w in winners) / len(winners) for c in range(3))
        yield VotedPair(pair, shares, len(winners), winners)


def test_votes_count_singly_and_length_is_always_there():
    voted = list(votes([(Outcome.B, Outcome.B), (Outcome.A,), (Outcome.TIE, Outcome.B)]))
    judge = Metric("judge", np.array([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.2, 0.3, 0.5]]))
    study = agree_with_votes(voted, [0, 1, 2], [judge], seed=0, resamples=20)
    by_name = {m.name: m for m in study.metrics}
    assert set(by_name) == {"judge", "length"}
    assert by_name["judge"].score("pairwise_accuracy").value == pytest.approx(3 / 5)
    assert by_name["judge"].score("decisive_accuracy").value == pytest.approx(3 / 4)
    assert by_name["length"].score("decisive_accuracy").value == pytest.approx(3 / 4)
    assert study.people["pairwise_accuracy"].value == pytest.approx(1 / 2)


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return str(path)


def test_tables_are_joined_and_nothing_is_lost_silently(tmp_path):
    base = [
        {"prompt": p, "system": s, "answer": "x" * (p + 1), "human": [p, p + 1], "good": p}
        for p in range(3)
        for s in "ab"
    ]
    base[0]["human"] = None
    base[3]["good"] = ""
    base[4]["good"] = "n/a"
    extra = tmp_path / "extra.csv"
    extra.write_text("prompt,system,late\n1,a,0.5\n2,b,0.25\n9,a,1\n", encoding="utf-8")
    path = write_lines(tmp_path / "base.jsonl", [*base, base[1]])
    rated, rows = read_rated([path, str(extra)], Keys(human=("human",)), Choice())
    assert [m.name for m in rated.metrics] == ["late"]  # `good` has words in it
    rated, rows = read_rated([path, str(extra)], Keys(human=("human",)), Choice(("good", "late")))
    good, late = rated.metrics
    assert len(rated.prompts) == 5 and rated.ratings.shape == (5, 2)
    assert good.unscored == {"no score in the table": 1, "not a number": 1}
    assert late.values.tolist()[1] == 0.5 and late.unscored == {"no score in the table": 3}
    assert rows.dropped.counts == {
        "repeats the key of an earlier row": 1,
        "key is not in the first table": 1,
        "no human rating": 1,
    }
    assert rated.lengths.tolist() == [1, 2, 2, 3, 3]


def test_a_missing_column_is_named(tmp_path):
    path = write_lines(tmp_path / "base.jsonl", [{"prompt": 1, "system": "a", "human": 1}])
    with pytest.raises(InputError, match="'rating'"):
        read_rated([path], Keys(human=("rating",)), Choice())
    with pytest.raises(InputError, match="'who'"):
        read_rated([path], Keys(system="who", human=("human",)), Choice())


def test_pair_tables_of_every_kind(tmp_path):
    voted = list(votes([(Outcome.B,), (Outcome.A,), (Outcome.TIE,)]))
    rows = [
        {"id": "p0", "winner": "b", "p_a": 0.2, "p_b": 0.7, "p_tie": 0.1, "reward_a": 1,
         "reward_b": 2},
        {"id": "p1", "winner": "a", "p_a": 0.6, "p_b": 0.3, "p_tie": 0.1, "reward_a": None,
         "reward_b": 2},
    ]  # fmt: skip
    judge = write_lines(tmp_path / "judge.jsonl", rows)
    verdicts = tmp_path / "gpt.csv"
    verdicts.write_text(
        "pair_id,verdict\np0,model_b\np1,I cannot say\np2,tie\nq,a\n", encoding="utf-8"
    )
    sides = tmp_path / "sides.csv"
    sides.write_text("pair_id,side,chrf\np0,a,1\np0,b,3\np2,a,2\n", encoding="utf-8")
    metrics, found = read_pair_metrics(
        [f"ours={judge}", f"gpt={verdicts}", str(sides)], voted, Choice()
    )
    by_name = {m.name: m for m in metrics}
    assert set(by_name) == {"ours.reward", "ours", "gpt", "chrf"}
    assert by_name["ours"].values[0].tolist() == [0.2, 0.7, 0.1]
    assert np.isnan(by_name["ours"].values[2]).all()
    assert by_name["gpt"].values[0].tolist() == [0, 1, 0]
    assert by_name["gpt"].unscored == {"not a, b or tie": 1}
    assert by_name["chrf"].values[0].tolist() == [1, 3]
    assert found.dropped.counts == {"pair id is not among the votes": 1}
    with pytest.raises(InputError, match="two metrics"):
        read_pair_metrics([str(verdicts), str(verdicts)], voted, Choice())
    with pytest.raises(InputError, match="no table has the metric"):
        read_pair_metrics([str(verdicts)], voted, Choice(("bleu",)))


def test_the_page_escapes_names_and_asks_for_nothing_outside(study):
    evil = replace(study.metrics[0], name="<script>alert(1)</script>")
    page = render_page(PageInput(replace(study, metrics=(evil, *study.metrics[1:]))))
    assert "<script>alert" not in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page
    assert "time-out" in page and "derived" in page


def test_the_headline_and_the_terminal_table(study):
    assert headline(study).startswith(study.metrics[0].name)
    table = agreement_table(study)
    # a random verdict, one rater and the best metric against the other raters
    assert table.row_count == len(study.metrics) + 3
    assert "Against the mean of all raters but one" in headline(study)


def test_a_rater_and_a_metric_on_the_same_footing_by_hand():
    ratings = np.array([[1.0, 2], [2, 1], [3, 3]])
    metric = Metric("like the first", ratings[:, 0])
    zeros = np.zeros(3, dtype=int)
    rated = Rated(zeros, np.arange(3), tuple("xyz"), ratings, None, (metric,))
    first, second = within_prompt_pairs(rated.prompts)
    rater, other = beside_raters(rated, first, second, seed=0, resamples=10)
    # each rater has two of three pairs as the other; the metric also has all three of the first's
    assert rater.decisive.value == pytest.approx(4 / 6)
    assert other.decisive.value == pytest.approx(5 / 6)
    assert other.difference.value == pytest.approx(1 / 6)
    assert rater.spearman.value == pytest.approx(0.5)
    assert other.spearman.value == pytest.approx((0.5 + 1) / 2)


def test_a_rater_is_compared_on_the_pairs_that_the_metric_scored(study):
    by_name = {b.name: b for b in study.beside}
    assert by_name["good"].difference.value == pytest.approx(
        by_name["good"].decisive.value - by_name["one rater"].decisive.value
    )
    assert by_name["holes"].difference.value != pytest.approx(
        by_name["holes"].decisive.value - by_name["one rater"].decisive.value, abs=1e-9
    )
    assert by_name["good"].difference.low > 0 > by_name["noise"].difference.high


def test_raters_who_do_not_agree_are_no_ceiling_and_the_page_says_so():
    rated = rated_answers()
    rng = np.random.default_rng(1)
    noise = rng.integers(1, 6, (len(rated.prompts), 1)).astype(float)
    study = agree_with_ratings(
        replace(rated, ratings=np.column_stack([noise, 6 - noise])), seed=0, resamples=50
    )
    assert any("no ceiling" in caution for caution in cautions(study))
    page = render_page(PageInput(study))
    assert "Metrics beside one rater" in page and ">people with each other<" not in page


def test_one_answer_per_prompt_leaves_correlations_only():
    rng = np.random.default_rng(0)
    x = rng.normal(size=16)
    rated = Rated(
        np.arange(16), np.arange(16), tuple(map(str, range(16))),
        (x + 0.3 * rng.normal(size=16))[:, None], None, (Metric("m", x), Metric("n", -x)),
    )  # fmt: skip
    study = agree_with_ratings(rated, seed=0, resamples=100)
    assert study.primary == "spearman_item" and study.metrics[0].name == "m"
    assert study.metrics[0].score("decisive_accuracy").reason
    assert study.comparisons[0].needed.settled
    assert agreement_table(study).row_count == 2
    page = render_page(PageInput(study))
    assert ">a random verdict<" not in page and "one rating per answer" in page


def test_the_command_writes_page_json_and_refuses_two_truths(tmp_path):
    from litee.cli.agree import agree

    rng = np.random.default_rng(0)
    rows = [
        {"prompt": p, "system": s, "human": int(rng.integers(1, 6)), "m": float(rng.normal())}
        for p in range(12)
        for s in "abc"
    ]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    agree([path], human="human", out=tmp_path / "out", resamples=20)
    record = json.loads((tmp_path / "out/agreement.json").read_text(encoding="utf-8"))
    assert record["counts"]["answers"] == 36
    assert math.isfinite(record["metrics"]["m.spearman_item"])
    assert (tmp_path / "out/agreement.html").read_text(encoding="utf-8").startswith("<!doctype")
    with pytest.raises(ConfigError, match="--human or by --votes"):
        agree([path])


@pytest.mark.real_data
def test_gpt4_and_people_on_mt_bench_as_published():
    path = DATA / "judge_verdicts/mt_bench_gpt4_pair.jsonl.gz"
    if not path.exists():
        pytest.skip(f"real verdicts are not here: {path.name}")
    voted = read_voted("mt_bench_human")
    verdicts = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        v = json.loads(line)
        key = (str(v["question_id"]), str(v["turn"]), frozenset((v["model_a"], v["model_b"])))
        verdicts[key] = v
    rows = []
    for item in voted:
        question, turn = item.pair.id.split(":mtb-")[1].split("-")[:2]
        v = verdicts[question, turn, frozenset((item.pair.model_a, item.pair.model_b))]
        same = v["model_a"] == item.pair.model_a
        place = {"model_a": 0 if same else 1, "model_b": 1 if same else 0}.get(v["winner"], 2)
        rows.append(np.eye(3)[place])
    groups = np.unique([v.pair.prompt[0] for v in voted], return_inverse=True)[1].tolist()
    study = agree_with_votes(voted, groups, [Metric("gpt4", np.array(rows))], seed=0, resamples=50)
    gpt4 = next(m for m in study.metrics if m.name == "gpt4")
    assert gpt4.score("pairwise_accuracy").value == pytest.approx(0.662, abs=0.0005)
    assert gpt4.score("both_decisive_accuracy").value == pytest.approx(0.856, abs=0.0005)
    assert study.people["pairwise_accuracy"].value == pytest.approx(0.646, abs=0.0005)
    assert study.people["decisive_accuracy"].value == pytest.approx(0.823, abs=0.0005)


@pytest.mark.real_data
def test_reliability_and_derived_pairs_of_the_travel_answers():
    path = DATA / "metric_vs_human/dstc9/rated_responses.jsonl.gz"
    if not path.exists():
        pytest.skip(f"real ratings are not here: {path.name}")
    keys = Keys("turn", "system", "response", ("accuracy",))
    rated, rows = read_rated([path], keys, Choice())
    assert len(rated.prompts) == 11_341 and rows.dropped.total == 0
    found = reliability(rated.ratings)
    assert [round(r, 2) for r in found.pair_correlations] == [0.36, 0.40, 0.45]
    assert found.of_mean == pytest.approx(0.67, abs=0.005)
    first, second = within_prompt_pairs(rated.prompts)
    assert len(first) == 27_307
    assert int((rated.mean[first] == rated.mean[second]).sum()) == 13_303


def test_a_metric_that_hardly_ever_decides_is_pointed_out():
    rated = rated_answers()
    rare = np.zeros(len(rated.prompts))
    rare[3] = 1.0
    study = agree_with_ratings(
        replace(rated, metrics=(*rated.metrics, Metric("rare", rare))), seed=0, resamples=50
    )
    (said,) = [c for c in cautions(study) if "rests on the few others" in c]
    assert said.startswith("rare calls a tie in 98.3 % of the pairs")  # 2 of 120 within prompts
