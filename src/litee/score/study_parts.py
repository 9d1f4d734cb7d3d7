"""A study made of studies: all parts run, or gone on with, and one page and results file for all.

Every part is a study file of its own and lies where it would lie if it were run alone. Knows
nothing of command lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.config import FitSettings, load_settings, read_yaml
from litee.errors import ConfigError, InputError
from litee.rundir import Json, Receipt, write_text
from litee.score.demonstration_settings import (
    DemonstrationPlan,
    DemonstrationStudySettings,
    plan_study,
)
from litee.score.demonstration_study import run_demonstrations
from litee.score.results import Result, new_result, read_result, write_result
from litee.score.study import run_study
from litee.score.study_page import study_page
from litee.score.study_settings import Studied, StudySettings


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is ready to run.

    Attributes:
        file: of the study.
        study: what it says.
        settings: of its fits, or of all its steps.
    """

    file: Path
    study: StudySettings | DemonstrationStudySettings
    settings: FitSettings | DemonstrationPlan

    @property
    def command(self) -> str:
        """The command that makes its results."""
        return f"litee study {self.file.as_posix()}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Files of the studies that it is made of; most are made of none."""
        return self.study.parts if isinstance(self.study, StudySettings) else ()

    def run(self, *, out: Path, data: Path, command: str) -> Studied:
        """Run it, or go on with it, if it is not made of parts; the arguments are `run_study`'s."""
        folder = self.file.parent
        if isinstance(self.settings, DemonstrationPlan):
            return run_demonstrations(
                self.settings, folder=folder, out=out, data=data, command=command
            )
        assert isinstance(self.study, StudySettings)
        return run_study(
            self.study, self.settings, folder=folder, out=out, data=data, command=command
        )


def load_part(file: Path) -> Part:
    """A study file, and the settings of its fits or other steps.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or wrong.
    """
    if read_yaml(file).get("kind") == "demonstrations":
        compared = load_settings(DemonstrationStudySettings, file)
        return Part(file, compared, plan_study(compared, str(file)))
    study = load_settings(StudySettings, file)
    try:
        settings = load_settings(FitSettings, None, study.settings)
    except ConfigError as error:
        raise ConfigError(error.problem, place=f"{file}, settings", fix=error.fix) from error
    return Part(file, study, settings)


def run_parts(
    study: StudySettings,
    *,
    folder: Path,
    out: Path,
    data: Path,
    results: Path,
    command: str,
    finished: bool = False,
) -> Studied:
    """Run all parts, write their results files, and bring them together.

    Args:
        study: with parts and headlines.
        folder: the study file's folder; parts are named from there.
        out: gets `report.html`; the parts' runs lie beside it, under their own names.
        data: folder of the votes files.
        results: folder of the results files.
        command: the command that makes the results again.
        finished: take a part's results file as it is where the part's own command has made it,
            and run the others; the page then has its figures without plots.

    Returns:
        The headline metrics, with their intervals.

    Raises:
        ConfigError: a part is wrong, or is made of parts itself, or a headline names none.
        InputError: a headline names a metric that its results file does not have.
    """
    parts = [load_part(folder / name) for name in study.parts]  # all are checked before the first
    beside = {name: read_result(results / f"{name}.json") for name in study.beside}
    _check(study, parts)
    done: dict[str, Studied] = {}
    known: dict[str, Result] = {}
    for part in parts:
        name = part.study.name
        kept = _finished(part, results) if finished else None
        if kept is not None:
            known[name] = kept
            continue
        done[name] = part.run(out=out.parent / name, data=data, command=part.command)
        known[name] = done[name].result
        write_result(results, known[name])
    receipt = _receipt(known.values())
    taken = {name: one for name, one in known.items() if name not in done}
    known |= beside
    metrics, intervals = _headlines(study.headlines, known)
    made = new_result(
        study.name,
        command,
        receipt,
        metrics,
        intervals=intervals,
        tables=_tables(study, known.values()),
        notes=study.notes,
    )
    write_text(out / "report.html", study_page(made, study.headlines, done, taken | beside))
    return Studied(made, {})


def _check(study: StudySettings, parts: Sequence[Part]) -> None:
    """Refuse parts of parts, and headlines of what is neither a part nor beside."""
    for part in parts:
        if part.parts:
            raise ConfigError(
                "a part is made of parts itself", place=str(part.file), fix="name its parts here"
            )
    known = {*study.beside, *(part.study.name for part in parts)}
    for name, source in study.headlines.items():
        if source.partition(".")[0] not in known:
            raise ConfigError(
                f"headline {name} = {source!r}: no part of this name",
                place=study.name,
                fix="write part.metric, with the name of one of the parts or of beside",
            )


def _finished(part: Part, results: Path) -> Result | None:
    """The results file of a part, if its own command has made it."""
    file = results / f"{part.study.name}.json"
    if not file.is_file():
        return None
    found = read_result(file)
    return found if found.command == part.command else None


def _receipt(parts: Iterable[Result]) -> Receipt:
    """What all parts cost together."""
    receipt = Receipt()
    for one in parts:
        receipt.include(Receipt(**dict(one.receipt)))  # type: ignore[arg-type]
    return receipt


def _headlines(
    wanted: Mapping[str, str], known: Mapping[str, Result]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, source in wanted.items():
        file, _, metric = source.partition(".")
        result = known[file]
        if metric not in result.metrics:
            raise InputError(
                f"headline {name} = {source!r}: {file} has no metric of this name",
                fix="write part.metric, with a metric of its results file",
            )
        metrics[name] = result.metrics[metric]
        if metric in result.intervals:
            intervals[name] = result.intervals[metric]
    return metrics, intervals


def _tables(study: StudySettings, results: Iterable[Result]) -> dict[str, Json]:
    return {
        "headlines": dict(study.headlines),
        "parts": [
            {"name": r.name, "command": r.command, "date": r.date, "seconds": r.receipt["seconds"]}
            for r in results
        ],
    }
