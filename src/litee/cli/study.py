"""`litee study`: an experiment file becomes a results file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError

if TYPE_CHECKING:
    from litee.score.study_parts import Part

#: What marks a run's folder below a study's.
_MADE = ("manifest.json", "*/manifest.json", "*/*/spent.json")


def study(
    file: Annotated[Path, typer.Argument(help="A study, e.g. experiments/mt_bench_transfer.yaml.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder for judges and reports.")] = None,
    data: Annotated[Path, typer.Option(help="Folder of the votes files.")] = Path("../shared/data"),
    results: Annotated[Path, typer.Option(help="Folder of the results files.")] = Path("results"),
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an earlier run away instead of going on.")
    ] = False,
    finished: Annotated[
        bool,
        typer.Option(
            "--finished", help="Of a study made of parts: take results files that are there."
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it, and write its results file."""
    from rich.console import Console

    from litee.score.report import headline
    from litee.score.results import write_result
    from litee.score.study_parts import load_part, run_parts
    from litee.score.study_settings import StudySettings
    from litee.score.table import evaluation_table

    part = load_part(file)
    loaded = part.study
    folder = out or Path("runs") / loaded.name
    command = f"litee study {file.as_posix()}"
    if finished:
        _check_finished(part, restart)
    if restart:
        _throw_away(part, folder)
    if isinstance(loaded, StudySettings) and loaded.kind == "parts":
        found = run_parts(
            loaded,
            folder=file.parent,
            out=folder,
            data=data,
            results=results,
            command=command,
            finished=finished,
        )
    else:
        found = part.run(out=folder, data=data, command=command)
    console = Console()
    for title, evaluation in found.evaluations.items():
        console.print(f"\n[bold]{title}[/]")
        console.print(evaluation_table(evaluation))
        console.print(headline(evaluation), soft_wrap=True)
    for line in found.lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    path = write_result(results, found.result)
    console.print(f"\nresults: {path}   judge and report: {folder}", soft_wrap=True)


def _check_finished(part: Part, restart: bool) -> None:
    problem, fix = "", "leave one of them out"
    if restart:
        problem = "--finished keeps what --restart throws away"
    if not part.parts:
        problem = "--finished takes results of parts as they are: this study has none"
        fix = "leave --finished out"
    if problem:
        raise ConfigError(problem, place=str(part.file), fix=fix)


def _throw_away(part: Part, folder: Path) -> None:
    """What the study and its parts have made, and what of it studies share."""
    from litee.score.study_parts import load_part
    from litee.score.study_store import SHARED, throw_away

    names = [load_part(part.file.parent / name).study.name for name in part.parts]
    places = (folder, *(folder.parent / name for name in names))
    for place in places:
        throw_away(place.parent / SHARED, place)
    for made in [f for place in places for kind in _MADE for f in place.glob(kind)]:
        shutil.rmtree(made.parent, ignore_errors=True)
