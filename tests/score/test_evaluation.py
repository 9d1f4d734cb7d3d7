import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from made_up_votes import make_votes, noisy
from rich.console import Console

from litee.records import Pair, VotedPair
from litee.score.evaluation import evaluate
from litee.score.floors import FLOOR_NAMES, floor_systems
from litee.score.outcomes import Truth, metric_rows, unswap
from litee.score.table import evaluation_table


@pytest.fixture(scope="module")
def sample():
    training, _, _ = make_votes(300, 1)
    voted, true, groups = make_votes(400, 2, prompts=80)
    systems = {"judge": noisy(true, 0.3, 0), "member": noisy(true, 0.9, 1)}
    systems["verdicts"] = np.eye(3)[true.argmax(axis=1)]
    return systems | floor_systems(training, [v.pair for v in voted]), voted, groups


@pytest.fixture(scope="module")
def found(sample):
    systems, voted, groups = sample
    back = {"judge": unswap(systems["judge"])}
    return evaluate(systems, voted, groups, main="judge", seed=0, swapped=back, resamples=300)


def test_figures_are_those_of_the_metrics(sample, found):
    systems, voted, _ = sample
    truth = Truth.of(voted)
    for name, p in systems.items():
        for metric, rows in metric_rows(p, truth).items():
            assert found.score(name, metric).value == rows.value(), (name, metric)
    assert found.votes == sum(v.votes for v in voted) and found.pairs == 400
    assert found.groups == 80
    assert np.array(found.confusion).sum() == pytest.approx(found.votes)


def test_order_and_roles(found):
    assert [s.name for s in found.systems] == ["judge", "member", "verdicts", *FLOOR_NAMES]
    assert [s.role for s in found.systems] == ["main", "system", "system"] + ["floor"] * 4


def test_no_figure_is_nan_and_intervals_hold_their_value(found):
    for system in found.systems:
        for name, score in system.metrics.items():
            if score.value is None:
                assert score.reason
            else:
                assert np.isfinite(score.value), name
            if score.low is not None:
                assert score.low <= score.value + 1e-9 and score.value <= score.high + 1e-9, name


def test_main_is_better_than_its_noisy_member(found):
    gaps = {d.other: d.metrics["log_loss"] for d in found.differences}
    assert gaps["member"].high < 0
    assert gaps["verdicts"].value is None and "probability 0" in gaps["verdicts"].reason


def test_sources_split_the_votes(sample, found):
    systems, voted, _ = sample
    assert {s.source for s in found.sources} == {"forum", "lab"}
    assert sum(s.votes for s in found.sources) == found.votes
    lab = next(s for s in found.sources if s.source == "lab")
    keep = np.array([v.pair.source == "lab" for v in voted])
    alone = metric_rows(
        systems["judge"][keep], Truth.of([v for v in voted if v.pair.source == "lab"])
    )
    assert lab.metrics["judge"]["log_loss"].value == pytest.approx(alone["log_loss"].value())


def test_swapped_answers(found):
    metrics = found.system("judge").metrics
    assert metrics["swap_flip_rate"].value == 0 and metrics["swap_difference"].value == 0
    assert "swap_flip_rate" not in found.system("member").metrics


def test_an_order_bound_judge_is_called_out(sample):
    systems, voted, groups = sample
    back = {"judge": systems["judge"]}
    found = evaluate(systems, voted, groups, main="judge", seed=0, swapped=back, resamples=50)
    assert any("looks at the order" in c for c in found.cautions)


def test_json_is_plain_and_flat(found):
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["metrics"]["log_loss"] == found.score("judge", "log_loss").value
    assert record["metrics"]["prior.accuracy"] == found.score("prior", "accuracy").value
    assert all(isinstance(value, float) for value in record["metrics"].values())
    assert set(record["intervals"]) <= set(record["metrics"])
    assert "probability 0" in record["tables"]["missing"]["verdicts.log_loss"]
    assert record["metrics"]["human.three_way"] == found.human.three_way.value


def test_a_judge_without_knowledge_is_called_out(sample):
    systems, voted, groups = sample
    given = systems | {"judge": systems["uniform"]}
    found = evaluate(given, voted, groups, main="judge", seed=0, resamples=50)
    assert any("does not beat the floor “length bins”" in c for c in found.cautions)


def test_a_leak_is_called_out():
    voted, _, groups = make_votes(300, 5)
    seen = 0.98 * Truth.of(voted).shares + 0.02 / 3
    found = evaluate({"judge": seen}, voted, groups, main="judge", seed=0, resamples=50)
    assert any("look for a leak" in c for c in found.cautions)


def test_underconfident_judge_is_called_out(sample):
    systems, voted, groups = sample
    shy = {"judge": 0.9 / 3 + 0.1 * systems["judge"]}
    found = evaluate(shy, voted, groups, main="judge", seed=0, resamples=50)
    assert found.system("judge").consistency.startswith("miscalibrated or impossible")
    assert found.cautions[0].startswith("judge: miscalibrated")
    without = shy | {"without words": shy["judge"]}
    found = evaluate(
        without, voted, groups, main="judge", seed=0, resamples=50, ablations=["without words"]
    )
    assert not any(c.startswith("without words") for c in found.cautions)


def test_few_prompts_and_no_repeats_are_called_out():
    voted, true, groups = make_votes(40, 1, prompts=8)
    single = [replace(v, shares=(1.0, 0.0, 0.0), votes=1, winners=()) for v in voted]
    found = evaluate({"judge": true}, single, groups, main="judge", seed=0, resamples=50)
    assert any("8 prompt groups" in c for c in found.cautions)
    assert any("no human ceiling" in c for c in found.cautions)
    assert found.main_on_repeated["accuracy"].value is None


def test_one_pair_is_enough():
    voted = [VotedPair(Pair("1", ("q",), ("x",), ("y",)), (0.0, 0.0, 1.0), 1)]
    found = evaluate({"judge": np.array([[0.2, 0.2, 0.6]])}, voted, [0], main="judge", seed=0)
    assert found.score("judge", "accuracy").value == 1
    assert found.score("judge", "accuracy_decisive").reason == "no decisive votes (a or b)"
    json.dumps(found.to_json(), allow_nan=False)


def test_wrong_input_is_refused(sample):
    systems, voted, groups = sample
    with pytest.raises(ValueError, match="one group per pair"):
        evaluate(systems, voted, groups[:-1], main="judge", seed=0)
    with pytest.raises(ValueError, match="not among the systems: nobody"):
        evaluate(systems, voted, groups, main="nobody", seed=0)
    with pytest.raises(ValueError, match="shape"):
        evaluate({"judge": systems["judge"][:5]}, voted, groups, main="judge", seed=0)
    with pytest.raises(KeyError, match="nobody"):
        evaluate(systems, voted, groups, main="judge", seed=0, resamples=5).system("nobody")


def test_terminal_table_fits_80_columns(sample):
    systems, voted, groups = sample
    long = {"[bold]a judge with a very long name indeed": systems["judge"], **systems}
    found = evaluate(long, voted, groups, main="judge", seed=0, resamples=50)
    console = Console(width=80, record=True, file=StringIO())
    console.print(evaluation_table(found))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith("[bold]a judge") and "…" in line for line in lines)
    judge = next(line for line in lines if line.strip().startswith("judge"))
    assert f"{found.score('judge', 'log_loss').value:.3f} [" in judge
    assert lines[-2].strip().startswith("people")
