"""`litee generate`: prompts to answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import load_settings
from litee.errors import ConfigError
from litee.predict.generation_settings import GenerateSettings

if TYPE_CHECKING:
    from litee.predict.generation_model import GenerationModel
    from litee.predict.generation_prompts import PromptSet
    from litee.predict.generation_run import Summary

_DEFAULTS = GenerateSettings()


def setting_help(name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    field = GenerateSettings.model_fields[name]
    shown = getattr(_DEFAULTS, name)
    return f"{field.description} (default: {shown if shown != '' else 'none'})"


BackboneOption = Annotated[
    str | None, typer.Option("--backbone", "--model", help=setting_help("backbone"))
]
RepetitionPenaltyOption = Annotated[
    float | None, typer.Option(help=setting_help("repetition_penalty"))
]
MaxBatchTokensOption = Annotated[int | None, typer.Option(help=setting_help("max_batch_tokens"))]


def generate(
    prompts: Annotated[Path, typer.Argument(help="Prompts: .txt, a table, or a votes file.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output, JSON lines.")],
    backbone: BackboneOption = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter.")] = None,
    judge: Annotated[str | None, typer.Option(help="Judge that gives rewards.")] = None,
    best_of: Annotated[int | None, typer.Option(help=setting_help("best_of"))] = None,
    samples: Annotated[int | None, typer.Option(help=setting_help("samples"))] = None,
    all: Annotated[bool, typer.Option("--all", help="Write every candidate of best-of-n.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the system in the output.")] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the prompts.")] = None,
    system: Annotated[str | None, typer.Option(help=setting_help("system"))] = None,
    preset: Annotated[str | None, typer.Option(help=setting_help("preset"))] = None,
    temperature: Annotated[float | None, typer.Option(help=setting_help("temperature"))] = None,
    top_p: Annotated[float | None, typer.Option(help=setting_help("top_p"))] = None,
    repetition_penalty: RepetitionPenaltyOption = None,
    max_new_tokens: Annotated[int | None, typer.Option(help=setting_help("max_new_tokens"))] = None,
    max_batch: Annotated[int | None, typer.Option(help=setting_help("max_batch"))] = None,
    max_batch_tokens: MaxBatchTokensOption = None,
    template: Annotated[str | None, typer.Option(help=setting_help("template"))] = None,
    dtype: Annotated[str | None, typer.Option(help=setting_help("dtype"))] = None,
    device: Annotated[str | None, typer.Option(help=setting_help("device"))] = None,
    threads: Annotated[int | None, typer.Option(help=setting_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=setting_help("seed"))] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
) -> None:
    """Answer every prompt of a file; with --best-of N the judge picks the best of N answers."""
    values = {
        "backbone": backbone,
        "best_of": best_of,
        "samples": samples,
        "system": system,
        "preset": preset,
        "temperature": temperature,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
        "max_batch": max_batch,
        "max_batch_tokens": max_batch_tokens,
        "template": template,
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "seed": seed,
    }
    settings = load_settings(GenerateSettings, config, values)
    _check(settings, out, judge, keep_all=all)
    _run(
        settings,
        prompts=prompts,
        column=column,
        out=out,
        adapter=adapter,
        judge=judge,
        name=name,
        keep_all=all,
        resume=resume,
    )


def _check(settings: GenerateSettings, out: Path, judge: str | None, *, keep_all: bool) -> None:
    if out.suffix != ".jsonl":
        shown = out.suffix or "a file without suffix"
        raise ConfigError(f"cannot write {shown}", place=str(out), fix="name a .jsonl file")
    if settings.best_of > 1 and judge is None:
        fix = "add --judge FOLDER, made by `litee fit`"
        raise ConfigError(f"best_of = {settings.best_of} needs a judge", fix=fix)
    if keep_all and settings.best_of == 1:
        fix = "add --best-of N, or use --samples N to keep several answers"
        raise ConfigError("--all keeps the candidates of best-of-n, but best_of = 1", fix=fix)


def _run(
    settings: GenerateSettings,
    *,
    prompts: Path,
    column: str | None,
    out: Path,
    adapter: Path | None,
    judge: str | None,
    name: str | None,
    keep_all: bool,
    resume: bool,
) -> None:
    from litee.predict.generation import Engine
    from litee.predict.generation_model import BASE, GenerationModel
    from litee.predict.generation_prompts import read_prompts
    from litee.predict.generation_run import Task, answer_prompts
    from litee.predict.judge import Judge
    from litee.progress import progress

    found = read_prompts(prompts, column=column, system=settings.system)
    adapters = {} if adapter is None else {"adapter": adapter}
    model = GenerationModel(settings, adapters)
    if adapters:
        model.settle("adapter")
    scorer = None if judge is None else Judge.from_pretrained(judge)
    inputs = _inputs(prompts, model, adapter)
    if scorer is not None:
        from litee.rundir import sha256_file

        inputs[f"judge {judge}"] = sha256_file(scorer.folder / "judge.json")
    task = Task(
        found.prompts,
        settings,
        name or (settings.backbone if adapter is None else adapter.name),
        adapter=BASE if adapter is None else "adapter",
        inputs=inputs,
        keep_all=keep_all,
    )
    engine = Engine(model, max_batch=settings.max_batch, max_batch_tokens=settings.max_batch_tokens)
    with progress("answering", len(found.prompts), "prompts") as advance:
        summary = answer_prompts(task, engine, out, judge=scorer, resume=resume, advance=advance)
    _say(summary, found, out)


def _inputs(prompts: Path, model: GenerationModel, adapter: Path | None) -> dict[str, str]:
    from litee.predict.generation_model import adapter_sha256
    from litee.rundir import sha256_file

    inputs = {str(prompts): sha256_file(prompts), model.folder.name: model.folder.sha256}
    if adapter is not None:
        inputs[str(adapter)] = adapter_sha256(adapter)
    return inputs


def _say(summary: Summary, found: PromptSet, out: Path) -> None:
    from litee.progress import console

    for reason, count in found.dropped.counts.items():
        console.print(f"  left out {count:,}: {reason}", soft_wrap=True)
    console.print(
        f"{summary.answers:,} answers in {out}; {summary.written:,} written at "
        f"{summary.tokens_per_second:,.0f} tokens/s, {100 * summary.stop_rate:.1f} % of them ended "
        "by the model",
        soft_wrap=True,
    )
