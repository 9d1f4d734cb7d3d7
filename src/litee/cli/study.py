"""`litee study`: an experiment file becomes a results file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from litee.config import FitSettings, load_settings
from litee.errors import ConfigError


def study(
    file: Annotated[Path, typer.Argument(help="A study, e.g. experiments/mt_bench_transfer.yaml.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder for judges and reports.")] = None,
    data: Annotated[Path, typer.Option(help="Folder of the votes files.")] = Path("../shared/data"),
    results: Annotated[Path, typer.Option(help="Folder of the results files.")] = Path("results"),
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an earlier run away instead of going on.")
    ] = False,
) -> None:
    """Run a study, or go on with it, and write its results file."""
    from rich.console import Console

    from litee.score.report import headline
    from litee.score.results import write_result
    from litee.score.study import run_study
    from litee.score.study_settings import StudySettings
    from litee.score.table import evaluation_table

    loaded = load_settings(StudySettings, file)
    try:
        settings = load_settings(FitSettings, None, loaded.settings)
    except ConfigError as error:
        raise ConfigError(error.problem, place=f"{file}, settings", fix=error.fix) from error
    folder = out or Path("runs") / loaded.name
    if restart:
        for manifest in (*folder.glob("*/manifest.json"), *folder.glob("manifest.json")):
            shutil.rmtree(manifest.parent)
    found = run_study(
        loaded,
        settings,
        folder=file.parent,
        out=folder,
        data=data,
        command=f"litee study {file.as_posix()}",
    )
    console = Console()
    for title, evaluation in found.evaluations.items():
        console.print(f"\n[bold]{title}[/]")
        console.print(evaluation_table(evaluation))
        console.print(headline(evaluation), soft_wrap=True)
    path = write_result(results, found.result)
    console.print(f"\nresults: {path}   judge and report: {folder}", soft_wrap=True)
