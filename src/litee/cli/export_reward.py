"""`litee export-reward`: a judge's member as a plain reward model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_reward(
    judge: Annotated[Path, typer.Argument(help="Folder of a judge.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the reward model.")],
    member: Annotated[
        str, typer.Option(help="Member to export; else the one with most weight that can be.")
    ] = "",
) -> None:
    """Write a judge's member as a sequence classifier that transformers, TRL and vLLM load.

    Its logit is the member's reward. The member must read the last state and nothing else: fit
    the judge with --pooling last --no-answer-length.
    """
    from rich.console import Console

    from litee.predict.reward_export import export_reward as export

    done = export(judge, out, member=member)
    Console().print(
        f"member {done.member}: {done.folder}\nlargest difference of its rewards on trial texts: "
        f"{done.largest_difference:.1g}",
        highlight=False,
        soft_wrap=True,
    )
