"""`litee tune dpo`, `litee tune grpo` and `litee tune rloo`: votes and rewards to a chat model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.cli.tune import described, hashes
from litee.config import load_settings
from litee.errors import ConfigError
from litee.finetune.chat_settings import DpoSettings, OnlineAlgorithm, OnlineSettings

if TYPE_CHECKING:
    from litee.finetune.dpo import DpoResult
    from litee.finetune.online import OnlineResult
    from litee.records import Message


def _dpo_help(name: str) -> str:
    return described(DpoSettings, name)


def _online_help(name: str) -> str:
    return described(OnlineSettings, name)


VotesArgument = Annotated[
    list[str] | None, typer.Argument(help="Votes files to learn from; else --prompts.")
]
PromptsOption = Annotated[
    Path | None, typer.Option(help="Prompts: the model's own answers are ranked by --judge.")
]
AnswersOption = Annotated[
    Path | None,
    typer.Option(help="Several answers per prompt, by `litee generate`: these are ranked."),
]
JudgeOption = Annotated[
    str | None, typer.Option(help="Judge that ranks samples; answers with rewards need none.")
]


def dpo(
    votes: VotesArgument = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the run; the adapter is in it.")],
    prompts: PromptsOption = None,
    answers: AnswersOption = None,
    judge: JudgeOption = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    format: Annotated[str, typer.Option(help="Layout of votes files; docs/data.md.")] = "auto",
    backbone: Annotated[str | None, typer.Option(help=_dpo_help("backbone"))] = None,
    method: Annotated[str | None, typer.Option(help=_dpo_help("method"))] = None,
    loss: Annotated[str | None, typer.Option(help=_dpo_help("loss"))] = None,
    beta: Annotated[float | None, typer.Option(help=_dpo_help("beta"))] = None,
    ties: Annotated[str | None, typer.Option(help=_dpo_help("ties"))] = None,
    samples: Annotated[int | None, typer.Option(help=_dpo_help("samples"))] = None,
    margin: Annotated[float | None, typer.Option(help=_dpo_help("margin"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_dpo_help("learning_rate"))] = None,
    num_train_epochs: Annotated[
        int | None, typer.Option(help=_dpo_help("num_train_epochs"))
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help=_dpo_help("batch_size"))] = None,
    max_length: Annotated[int | None, typer.Option(help=_dpo_help("max_length"))] = None,
    answer_tokens: Annotated[int | None, typer.Option(help=_dpo_help("answer_tokens"))] = None,
    lora_r: Annotated[int | None, typer.Option(help=_dpo_help("lora_r"))] = None,
    threads: Annotated[int | None, typer.Option(help=_dpo_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_dpo_help("seed"))] = None,
) -> None:
    """Tune a chat model on votes, or on its own answers ranked by a judge (DPO).

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    settings = load_settings(
        DpoSettings,
        config,
        {
            "backbone": backbone,
            "method": method,
            "loss": loss,
            "beta": beta,
            "ties": ties,
            "samples": samples,
            "margin": margin,
            "learning_rate": learning_rate,
            "num_train_epochs": num_train_epochs,
            "batch_size": batch_size,
            "max_length": max_length,
            "answer_tokens": answer_tokens,
            "lora_r": lora_r,
            "threads": threads,
            "seed": seed,
        },
    )
    _check_source(votes, prompts, answers, judge)
    if votes:
        _show_dpo(_on_votes(votes, settings, format=format, out=out, resume=resume))
    elif answers:
        _show_dpo(_on_answers(answers, judge, settings, out=out, resume=resume))
    else:
        _show_dpo(_on_samples(prompts, judge, settings, out=out, resume=resume))


def grpo(
    prompts: Annotated[Path, typer.Argument(help="Prompts: .txt, a table, or a votes file.")],
    *,
    judge: Annotated[str, typer.Option(help="Judge whose reward is learnt.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; the adapter is in it.")],
    independent: Annotated[
        str | None, typer.Option(help="Another judge, looked at on held-out prompts only.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    backbone: Annotated[str | None, typer.Option(help=_online_help("backbone"))] = None,
    method: Annotated[str | None, typer.Option(help=_online_help("method"))] = None,
    beta: Annotated[float | None, typer.Option(help=_online_help("beta"))] = None,
    max_steps: Annotated[int | None, typer.Option(help=_online_help("max_steps"))] = None,
    samples: Annotated[int | None, typer.Option(help=_online_help("samples"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=_online_help("batch_size"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_online_help("learning_rate"))] = None,
    answer_tokens: Annotated[int | None, typer.Option(help=_online_help("answer_tokens"))] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help=_online_help("length_penalty"))
    ] = None,
    vllm: Annotated[bool | None, typer.Option(help=_online_help("vllm"))] = None,
    threads: Annotated[int | None, typer.Option(help=_online_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_online_help("seed"))] = None,
) -> None:
    """Tune a chat model on a judge's reward with answers drawn as it learns (GRPO).

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    given = {
        "backbone": backbone,
        "method": method,
        "beta": beta,
        "max_steps": max_steps,
        "samples": samples,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "answer_tokens": answer_tokens,
        "length_penalty": length_penalty,
        "vllm": vllm,
        "threads": threads,
        "seed": seed,
    }
    settings = load_settings(OnlineSettings, config, given)
    _show_online(_online(prompts, settings, "grpo", (judge, independent), out=out, resume=resume))


def rloo(
    prompts: Annotated[Path, typer.Argument(help="Prompts: .txt, a table, or a votes file.")],
    *,
    judge: Annotated[str, typer.Option(help="Judge whose reward is learnt.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; the adapter is in it.")],
    independent: Annotated[
        str | None, typer.Option(help="Another judge, looked at on held-out prompts only.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    backbone: Annotated[str | None, typer.Option(help=_online_help("backbone"))] = None,
    max_steps: Annotated[int | None, typer.Option(help=_online_help("max_steps"))] = None,
    threads: Annotated[int | None, typer.Option(help=_online_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=_online_help("seed"))] = None,
) -> None:
    """Tune a chat model on a judge's reward with leave-one-out baselines (RLOO).

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    given = {"backbone": backbone, "max_steps": max_steps, "threads": threads, "seed": seed}
    settings = load_settings(OnlineSettings, config, given)
    _show_online(_online(prompts, settings, "rloo", (judge, independent), out=out, resume=resume))


def _check_source(
    votes: list[str] | None, prompts: Path | None, answers: Path | None, judge: str | None
) -> None:
    given = [bool(votes), bool(prompts), bool(answers)]
    if sum(given) != 1 or (prompts and not judge) or (votes and judge):
        raise ConfigError(
            "dpo learns from votes, or from --prompts with --judge, or from --answers",
            fix="name votes files, or --prompts FILE --judge DIR, or --answers FILE, just one",
        )


def _on_votes(
    votes: list[str], settings: DpoSettings, *, format: str, out: Path, resume: bool
) -> DpoResult:
    from litee.collect.pairs import gather
    from litee.collect.votes import load_votes
    from litee.finetune.dpo import tune_dpo
    from litee.finetune.preference_data import preferences_from_votes
    from litee.progress import console

    vote_set = load_votes(votes, format=format, strict=False)
    for reason, count in vote_set.dropped.counts.items():
        console.print(f"  dropped {count:,}: {reason}", highlight=False, markup=False)
    preferences = preferences_from_votes(gather(vote_set.votes), settings.ties)
    return tune_dpo(preferences, settings, out=out, inputs=dict(vote_set.inputs), resume=resume)


def _on_samples(
    prompts: Path | None, judge: str | None, settings: DpoSettings, *, out: Path, resume: bool
) -> DpoResult:
    from litee.finetune.dpo import tune_dpo_on_samples
    from litee.predict.judge_reward import JudgeReward

    assert prompts is not None
    assert judge is not None
    return tune_dpo_on_samples(
        _conversations(prompts),
        JudgeReward.load(judge),
        settings,
        out=out,
        inputs=hashes([prompts]),
        reward_name=judge,
        resume=resume,
    )


def _on_answers(
    file: Path, judge: str | None, settings: DpoSettings, *, out: Path, resume: bool
) -> DpoResult:
    from litee.finetune.dpo import tune_dpo
    from litee.finetune.preference_data import preferences_from_samples
    from litee.finetune.written_answers import read_written_answers
    from litee.predict.judge_reward import JudgeReward
    from litee.progress import console

    found = read_written_answers(file)
    for reason, count in found.dropped.counts.items():
        console.print(f"  dropped {count:,}: {reason}", highlight=False, markup=False)
    if judge is None and found.rewards is None:
        fix = "add --judge DIR, or write them with `litee generate --best-of N --judge DIR --all`"
        raise ConfigError("not all answers have a reward", place=str(file), fix=fix)
    rewards = found.rewards if judge is None else found.ranked_by(JudgeReward.load(judge))
    assert rewards is not None
    preferences = preferences_from_samples(
        found.conversations, found.answers, rewards, settings.margin, finished=found.finished
    )
    return tune_dpo(preferences, settings, out=out, inputs=hashes([file]), resume=resume)


def _online(
    prompts: Path,
    settings: OnlineSettings,
    algorithm: OnlineAlgorithm,
    judges: tuple[str, str | None],
    *,
    out: Path,
    resume: bool,
) -> OnlineResult:
    from litee.finetune.online import tune_online
    from litee.predict.judge_reward import JudgeReward
    from litee.score.reward_page import write_reward_page

    judge, independent = judges
    done = tune_online(
        _conversations(prompts),
        JudgeReward.load(judge),
        settings,
        algorithm,
        out=out,
        inputs=hashes([prompts]),
        independent=JudgeReward.load(independent) if independent else None,
        names=(judge, independent or ""),
        resume=resume,
    )
    write_reward_page(out)
    return done


def _conversations(file: Path) -> list[tuple[Message, ...]]:
    """The prompts of a file, each up to its first user turn."""
    from litee.predict.generation_prompts import read_prompts
    from litee.progress import console

    found = read_prompts(file)
    for reason, count in found.dropped.counts.items():
        console.print(f"  dropped {count:,}: {reason}", highlight=False, markup=False)
    return [prompt.messages(()) for prompt in found.prompts]


def _show_dpo(done: DpoResult) -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"{done.preferences:,} preferences, {done.steps:,} steps; in the last steps the tuned "
        f"model ranked {done.accuracy:.0%} of pairs as asked, margin {done.margin:+.3f}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{done.weights.name}: {done.weights}", highlight=False, soft_wrap=True)


def _show_online(done: OnlineResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        "step", "reward", "independent", "characters", "finished", title="held-out answers"
    )
    for look in done.looks:
        table.add_row(
            f"{look.step}{' ←' if look.step == done.step else ''}",
            f"{look.training:+.3f}",
            "" if look.independent is None else f"{look.independent:+.3f}",
            f"{look.characters:.0f}",
            f"{look.finished:.0%}",
        )
    if done.looks:
        console.print(table)
    if done.stopped_early:
        console.print(
            "stopped early: the reward rose while the independent one fell", style="yellow"
        )
    console.print(f"page: {done.weights.parent / 'rewards.html'}", highlight=False, soft_wrap=True)
    console.print(f"{done.weights.name}: {done.weights}", highlight=False, soft_wrap=True)
