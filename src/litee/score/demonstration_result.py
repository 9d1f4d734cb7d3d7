"""A finished study of demonstrations as a results file: flat metrics, tables, what it cost.

Knows nothing of how its parts came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litee.records import Score
from litee.rundir import Json, Receipt
from litee.score.comparison import SystemComparison
from litee.score.demonstration_arms import Answers, Chosen, Learnt, Source
from litee.score.demonstration_judges import NamedJudge
from litee.score.demonstration_prompts import Asked
from litee.score.demonstration_settings import Arm, DemonstrationStudySettings
from litee.score.results import Result, new_result
from litee.score.rules import Marks

#: Of `tuning.json`, what the table of arms shows.
_TUNING = ("steps", "rows", "tokens", "trained_tokens", "chosen", "chosen_by", "dropped", "noticed")

_WITH_RULES = (
    "Shares of answers with intervals over prompts: resampled, or Wilson's where all answers fall "
    "on one side. Refusals are told by their wording, so one that argues counts as an answer."
)

_WITH_PARTS = (
    "The judges learnt from parts of the votes that share no prompt; they may share raters."
)


@dataclass(frozen=True, slots=True)
class Done:
    """An arm that has answered.

    Attributes:
        arm: what it was.
        chosen: its demonstrations, None for the untuned model.
        learnt: its model, None for the untuned one.
        answers: what it answered.
    """

    arm: Arm
    chosen: Chosen | None
    learnt: Learnt | None
    answers: Answers


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a study of demonstrations found.

    Attributes:
        study: what was asked.
        against: the arm that the others were compared with.
        done: all arms, in order.
        judges: the main one first.
        compared: arm → its comparison; empty without judges.
        marks: of the prompts' rules, None when they have none.
        asked: the prompts.
        read: demonstrations file → what was read of it.
        judging: seconds of asking the judges.
    """

    study: DemonstrationStudySettings
    against: str
    done: Sequence[Done]
    judges: Sequence[NamedJudge]
    compared: Mapping[str, SystemComparison]
    marks: Marks | None
    asked: Asked
    read: Mapping[str, Source]
    judging: float

    @property
    def others(self) -> list[str]:
        """The arms that are compared with another one; the first gives the plain metrics."""
        return [d.arm.name for d in self.done if d.arm.name != self.against]


def make_result(findings: Findings, *, inputs: Mapping[str, str], command: str) -> Result:
    """The results file's content.

    Plain names are those of the first arm, in the eyes of the main judge; `<judge>.win_rate` is
    another judge's. With several comparisons there are `<arm>.win_rate` and
    `<arm>.<judge>.win_rate` too. Of rules there are `<arm>.<kind>` and `difference.<kind>`, or
    `<arm>.difference.<kind>`.

    Args:
        findings: of the study.
        inputs: what went in → SHA-256.
        command: that makes it again.
    """
    receipt = _receipt(findings, inputs)
    scores = _judged(findings) | _marked(findings)
    first = next(d for d in findings.done if d.arm.name == findings.others[0])
    metrics: dict[str, float] = {
        "prompts": len(findings.asked.prompts),
        "samples_per_prompt": first.arm.answers.samples,
    }
    found = {key: score.value for key, score in scores.items() if score.value is not None}
    metrics |= {key: found.pop(key) for key in list(found) if "." not in key}
    intervals = {
        key: (score.low, score.high)
        for key, score in scores.items()
        if score.value is not None and score.low is not None and score.high is not None
    }
    if "win_rate" in intervals:
        metrics["win_rate_low"], metrics["win_rate_high"] = intervals["win_rate"]
    metrics["stop_rate"] = first.answers.stop_rate
    metrics["seconds"] = receipt.seconds
    metrics |= found
    for done in findings.done:
        metrics[f"{done.arm.name}.stop_rate"] = done.answers.stop_rate
        metrics[f"{done.arm.name}.characters"] = done.answers.characters
    return new_result(
        findings.study.name,
        command,
        receipt,
        metrics,
        intervals=intervals,
        tables=_tables(findings),
        notes=_notes(findings),
    )


def mark_lines(findings: Findings) -> list[str]:
    """What the prompts' rules found, a line for every arm and kind of prompt."""
    if findings.marks is None:
        return []
    lines = []
    for kind in findings.marks.kinds:
        for done in findings.done:
            share = findings.marks.share(done.arm.name, kind)
            ends = "" if share.low is None else f" [{share.low:.0%}, {share.high:.0%}]"
            value = "—" if share.value is None else f"{share.value:.0%}"
            lines.append(f"{kind.replace('_', ' ')}, {done.arm.name}: {value}{ends}")
    return lines


def _judged(findings: Findings) -> dict[str, Score]:
    """Win rates, plain and at equal length, of all comparisons by all judges."""
    found: dict[str, Score] = {}
    for arm, comparison in findings.compared.items():
        starts = [""] if arm == findings.others[0] else []
        starts += [f"{arm}."] if len(findings.compared) > 1 else []
        for number, one in enumerate(comparison.judged):
            for start in starts:
                name = start if number == 0 else f"{start}{one.judge}."
                found[f"{name}win_rate"] = one.win_rate
                found[f"{name}win_rate_length_controlled"] = one.length_controlled
    return found


def _marked(findings: Findings) -> dict[str, Score]:
    """Shares by the prompts' rules, and what each arm has more than the one it is compared with."""
    marks = findings.marks
    if marks is None:
        return {}
    found = {
        f"{done.arm.name}.{kind}": marks.share(done.arm.name, kind)
        for done in findings.done
        for kind in marks.kinds
    }
    for arm in findings.others:
        start = f"{arm}." if len(findings.others) > 1 else ""
        for kind in marks.kinds:
            gap = marks.difference(arm, findings.against, kind)
            found[f"{start}difference.{kind}"] = gap
    return found


def _receipt(findings: Findings, inputs: Mapping[str, str]) -> Receipt:
    """What all steps cost, those of earlier studies that were taken over included."""
    receipt = Receipt()
    steps: dict[str, list[Receipt]] = {
        "judges": [judge.receipt for judge in findings.judges if judge.metrics],
        "choosing": [d.chosen.receipt for d in findings.done if d.chosen is not None],
        "tuning": [d.learnt.receipt for d in findings.done if d.learnt is not None],
        "answering": [d.answers.receipt for d in findings.done],
    }
    for step, parts in steps.items():
        for part in parts:
            receipt.include(part)
        receipt.stages[step] = round(sum(part.seconds for part in parts), 3)
    receipt.stages["judging"] = round(findings.judging, 3)
    receipt.seconds = round(receipt.seconds + findings.judging, 3)
    receipt.inputs = dict(inputs)
    receipt.seed = findings.study.seed
    return receipt


def _tables(findings: Findings) -> dict[str, Json]:
    return {
        "arms": [_row(done) for done in findings.done],
        "prompts left out": dict(findings.asked.left_out),
        "read": {file: dict(source.counts) for file, source in findings.read.items()},
        "not used": {
            d.arm.name: dict(d.chosen.refused) for d in findings.done if d.chosen is not None
        },
        "chosen": {
            d.arm.name: dict(d.chosen.sources) for d in findings.done if d.chosen is not None
        },
        "tuning": {
            d.arm.name: {key: d.learnt.record[key] for key in _TUNING if key in d.learnt.record}
            for d in findings.done
            if d.learnt is not None
        },
        "curves": {
            d.arm.name: d.learnt.record["curve"] for d in findings.done if d.learnt is not None
        },
        "comparisons": {arm: one.to_json() for arm, one in findings.compared.items()},
        "judges": [
            {"judge": j.name, "learnt from": j.part}
            | {key: j.metrics.get(key) for key in ("log_loss", "accuracy", "ece")}
            for j in findings.judges
        ],
    }


def _row(done: Done) -> dict[str, Json]:
    """An arm in a line."""
    chosen, learnt = done.chosen, done.learnt
    return {
        "arm": done.arm.name,
        "demonstrations": 0 if chosen is None else sum(chosen.sources.values()),
        "learnt": 0 if learnt is None else learnt.record["rows"],
        "steps": 0 if learnt is None else learnt.record["steps"],
        "tokens": 0 if learnt is None else learnt.record["tokens"],
        "trained_tokens": 0 if learnt is None else learnt.record["trained_tokens"],
        "tuning_seconds": 0 if learnt is None else learnt.receipt.seconds,
        "answering_seconds": done.answers.receipt.seconds,
        "stop_rate": done.answers.stop_rate,
        "characters": done.answers.characters,
    }


def _notes(findings: Findings) -> str:
    fitted = [judge for judge in findings.judges if judge.metrics]
    notes = [findings.study.notes]
    notes += [_WITH_PARTS] if len(fitted) > 1 else []
    notes += [_WITH_RULES] if findings.marks is not None else []
    return " ".join(note.strip() for note in notes if note.strip())
