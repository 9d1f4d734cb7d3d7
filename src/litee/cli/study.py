"""`litee study`: an experiment file becomes a results file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from litee.errors import ConfigError

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
    from litee.score.study_store import SHARED, throw_away
    from litee.score.table import evaluation_table

    part = load_part(file)
    loaded = part.study
    folder = out or Path("runs") / loaded.name
    command = f"litee study {file.as_posix()}"
    if finished and (restart or not part.parts):
        raise ConfigError(
            "--finished takes results of parts as they are: this study has none"
            if not part.parts
            else "--finished keeps what --restart throws away",
            place=str(file),
            fix="leave one of them out" if part.parts else "leave --finished out",
        )
    if restart:
        names = [load_part(file.parent / name).study.name for name in part.parts]
        places = (folder, *(folder.parent / name for name in names))
        for place in places:
            throw_away(place.parent / SHARED, place)
        for made in [f for place in places for kind in _MADE for f in place.glob(kind)]:
            shutil.rmtree(made.parent, ignore_errors=True)
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
