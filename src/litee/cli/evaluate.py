"""`litee evaluate`: a judge on votes it has not seen."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import Device
from litee.errors import ConfigError, LeakError

if TYPE_CHECKING:
    from litee.score.scorecard import Evaluation

_UNCHECKED = (
    "The votes the judge was fitted on were not named with --training: whether it has seen these "
    "prompts was not checked, and the floors were fitted on these very votes, which flatters them."
)


def _refuse_learnt(judge: str, asked: Mapping[str, str], learnt: Mapping[str, str]) -> None:
    """Stop when a judge is asked about a file it was fitted on; both map files to their sha256."""
    same = [Path(name).name for name, digest in asked.items() if digest in learnt.values()]
    if same:
        raise LeakError(
            f"the judge was fitted on {', '.join(same)}",
            place=judge,
            fix="test it on other votes; report.html beside it has its out-of-fold figures",
        )


def evaluate(
    judge: Annotated[str, typer.Argument(help="Folder of a judge, or owner/name on the hub.")],
    votes: Annotated[list[str], typer.Argument(help="Votes files, or hf://owner/name.")],
    *,
    training: Annotated[
        list[str] | None,
        typer.Option(help="Votes the judge was fitted on: fits the floors, checks for leaks."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    format: Annotated[str, typer.Option(help="Layout of the files; see docs/data.md.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where to run: auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Compute threads; 0 takes all cores.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
) -> None:
    """Score a judge against votes, beside its members, floors and human agreement."""
    from litee.collect.folds import check_leak, group_prompts
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.finetune.device import use_threads
    from litee.predict.judge import Judge
    from litee.score.fit_report import evaluate_judge, judge_report
    from litee.score.report import write_report

    if report is not None and report.suffix != ".html":
        raise ConfigError("the report is an HTML file", place=str(report), fix="name a .html file")
    vote_set = load_votes(votes, format=format)
    voted = gather(vote_set.votes)
    known = gather(load_votes(training).votes) if training else None
    if known is not None:
        check_leak([v.pair for v in known], [v.pair for v in voted])
    use_threads(threads)
    loaded = Judge.from_pretrained(judge, device=device)
    _refuse_learnt(judge, vote_set.inputs, loaded.file.trained_on)
    groups = group_prompts([v.pair for v in voted])
    evaluation = evaluate_judge(loaded, voted, groups, seed=seed, training=known)
    if known is None:
        evaluation = replace(evaluation, cautions=(*evaluation.cautions, _UNCHECKED))
    if report is not None:
        split = "Tested on " + ", ".join(Path(v).name for v in votes)
        if known is None:
            split += ". Prior and length floors were fitted on these votes themselves."
        page = judge_report(
            loaded,
            evaluation,
            vote_set,
            title=f"Judge {Path(judge).name} on {', '.join(Path(v).name for v in votes)}",
            command="litee " + shlex.join(sys.argv[1:]),
            split=split,
        )
        write_report(page, report)
    if as_json:
        sys.stdout.write(json.dumps(evaluation.to_json(), indent=2) + "\n")
        return
    _print(evaluation)


def _print(evaluation: Evaluation) -> None:
    from rich.console import Console

    from litee.score.report import headline
    from litee.score.table import evaluation_table

    console = Console()
    console.print(evaluation_table(evaluation))
    console.print(headline(evaluation), soft_wrap=True)
    for caution in evaluation.cautions:
        console.print(f"caution: {caution}", soft_wrap=True, style="yellow")
