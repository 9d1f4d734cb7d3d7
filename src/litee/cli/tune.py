"""`litee tune sft` and `litee tune merge`: demonstrations to a chat model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import Settings, load_settings
from litee.finetune.chat_settings import SftSettings

if TYPE_CHECKING:
    from litee.finetune.sft import Tuned
    from litee.records import Demonstration

app = typer.Typer(no_args_is_help=True, help="Tune chat models: demonstrations, votes, rewards.")


def described(kind: type[Settings], name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    field = kind.model_fields[name]
    return f"{field.description} (default: {field.default})"


def _help(name: str) -> str:
    return described(SftSettings, name)


@app.command()
def sft(
    demonstrations: Annotated[list[Path], typer.Argument(help="Files of demonstrations.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the run; the adapter is in it.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    format: Annotated[str, typer.Option(help="Format of the files; docs/curate.md.")] = "auto",
    dev: Annotated[
        Path | None, typer.Option(help="Held-out demonstrations; else some are split off.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Judge that chooses the checkpoint by its answers.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help=_help("backbone"))] = None,
    preset: Annotated[str | None, typer.Option(help=_help("preset"))] = None,
    method: Annotated[str | None, typer.Option(help=_help("method"))] = None,
    eot: Annotated[str | None, typer.Option(help=_help("eot"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_help("learning_rate"))] = None,
    num_train_epochs: Annotated[int | None, typer.Option(help=_help("num_train_epochs"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=_help("batch_size"))] = None,
    max_length: Annotated[int | None, typer.Option(help=_help("max_length"))] = None,
    residual_dropout: Annotated[float | None, typer.Option(help=_help("residual_dropout"))] = None,
    packing: Annotated[bool | None, typer.Option(help=_help("packing"))] = None,
    lora_r: Annotated[int | None, typer.Option(help=_help("lora_r"))] = None,
    threads: Annotated[int | None, typer.Option(help=_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
) -> None:
    """Tune a chat model on demonstrations: LoRA on two cores, or LIMA's recipe.

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    settings = load_settings(
        SftSettings,
        config,
        {
            "backbone": backbone,
            "preset": preset,
            "method": method,
            "eot": eot,
            "learning_rate": learning_rate,
            "num_train_epochs": num_train_epochs,
            "batch_size": batch_size,
            "max_length": max_length,
            "residual_dropout": residual_dropout,
            "packing": packing,
            "lora_r": lora_r,
            "threads": threads,
            "seed": seed,
        },
    )
    tune_files(demonstrations, dev, settings, format=format, out=out, judge=judge, resume=resume)


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(help="Tuning run, or folder of an adapter.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the whole model.")],
    backbone: Annotated[
        str | None, typer.Option(help="Base model; else the one the adapter names.")
    ] = None,
) -> None:
    """Merge an adapter into its base model: safetensors that any program loads."""
    from rich.console import Console

    from litee.finetune.chat_merge import merge as merge_adapter

    folder = merge_adapter(run, out, backbone=backbone)
    Console().print(f"model: {folder}", soft_wrap=True, highlight=False)


def tune_files(
    files: list[Path],
    dev: Path | None,
    settings: SftSettings,
    *,
    out: Path,
    format: str = "auto",
    judge: str | None = None,
    resume: bool = False,
) -> None:
    """Tune on files of demonstrations and print what came out; `dev` is held out, None splits."""
    from litee.finetune.sft import tune_sft
    from litee.predict.judge_reward import JudgeReward

    tuned = tune_sft(
        _read(files, format),
        settings,
        out=out,
        inputs=hashes([*files, *([dev] if dev else [])]),
        development=_read([dev], format) if dev else None,
        scorer=JudgeReward.load(judge) if judge else None,
        scorer_name=judge or "",
        resume=resume,
    )
    _show(tuned)


def hashes(files: list[Path]) -> dict[str, str]:
    """File → sha256, folders left out."""
    from litee.rundir import sha256_file

    return {str(path): sha256_file(path) for path in files if path.is_file()}


def _read(files: list[Path], format: str) -> list[Demonstration]:
    from litee.collect.demonstration_settings import DemonstrationSettings
    from litee.collect.demonstrations import read_demonstrations
    from litee.collect.reading import Reading
    from litee.progress import console

    reading = Reading(DemonstrationSettings())
    found = list(read_demonstrations(files, reading, format))
    for tally in (reading.lost, reading.removed):
        for reason, count in tally.counts.items():
            console.print(f"  dropped {count:,}: {reason}", highlight=False, markup=False)
    return found


def _show(tuned: Tuned) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("epoch", "held-out loss", "reward", "ended by themselves", title="checkpoints")
    for one in tuned.candidates:
        mark = " ←" if one == tuned.chosen else ""
        table.add_row(
            f"{one.epoch}{mark}",
            "" if one.dev_loss is None else f"{one.dev_loss:.4f}",
            "" if one.reward is None else f"{one.reward:+.3f}",
            "" if one.finished is None else f"{one.finished:.0%}",
        )
    console = Console()
    console.print(table)
    console.print(f"chosen by: {tuned.chosen_by}", highlight=False, soft_wrap=True)
    console.print(f"{tuned.weights.name}: {tuned.weights}", highlight=False, soft_wrap=True)
