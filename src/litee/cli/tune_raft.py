"""`litee tune raft`: rows of `litee raft build` to a chat model that answers from documents.

The same path as `litee tune sft`; knows nothing of how rows are made.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from litee.cli import tune
from litee.config import load_settings
from litee.errors import InputError
from litee.finetune.chat_settings import RAFT, SftSettings


def _help(name: str) -> str:
    field = SftSettings.model_fields[name]
    return f"{field.description} (default: {RAFT.get(name, field.default)})"


def raft(
    rows: Annotated[Path, typer.Argument(help="Folder that litee raft build wrote.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the run; the adapter is in it.")],
    plain: Annotated[
        bool, typer.Option("--plain", help="Same questions and answers, no documents.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    backbone: Annotated[str | None, typer.Option(help=_help("backbone"))] = None,
    preset: Annotated[str | None, typer.Option(help="raft, travel, light or lima.")] = None,
    method: Annotated[str | None, typer.Option(help=_help("method"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_help("learning_rate"))] = None,
    num_train_epochs: Annotated[int | None, typer.Option(help=_help("num_train_epochs"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=_help("batch_size"))] = None,
    max_length: Annotated[int | None, typer.Option(help=_help("max_length"))] = None,
    lora_r: Annotated[int | None, typer.Option(help=_help("lora_r"))] = None,
    patience: Annotated[int | None, typer.Option(help=_help("patience"))] = None,
    threads: Annotated[int | None, typer.Option(help=_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
) -> None:
    """Tune a chat model to answer from documents (retrieval-augmented fine-tuning).

    With --plain it learns the same questions and answers without documents: what RAFT is
    compared with. Rows that answer a test question are refused (exit code 3).
    """
    values = {
        "backbone": backbone,
        "preset": preset or (None if _names_preset(config) else "raft"),
        "method": method,
        "learning_rate": learning_rate,
        "num_train_epochs": num_train_epochs,
        "batch_size": batch_size,
        "max_length": max_length,
        "lora_r": lora_r,
        "patience": patience,
        "threads": threads,
        "seed": seed,
    }
    settings = load_settings(SftSettings, config, values)
    kind = ".plain.jsonl" if plain else ".jsonl"
    train, held = rows / f"train{kind}", rows / f"validation{kind}"
    for file in (train, held):
        if not file.is_file():
            fix = "name the folder that litee raft build wrote"
            raise InputError("is missing", place=str(file), fix=fix)
    _check_leaks(rows, train)
    development = held if held.stat().st_size else None
    tune.tune_files([train], development, settings, out=out, resume=resume)


def _names_preset(config: Path | None) -> bool:
    """Whether the file has a preset of its own; a file that cannot be read is an error later."""
    if config is None or not config.is_file():
        return False
    text = config.read_text(encoding="utf-8", errors="replace")
    return re.search(r"^preset\s*:", text, re.MULTILINE) is not None


def _check_leaks(rows: Path, train: Path) -> None:
    """Refuse training rows that answer a question of one of the folder's test files."""
    from litee.cli.raft import check

    tests = sorted(rows.glob("test.*.jsonl"))
    if tests and tests[0].stat().st_size:
        check([train], test=tests[0])
