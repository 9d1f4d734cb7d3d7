"""The page of a run on a reward: did the independent reward follow, and what else changed?

Read from the run's `tuning.json`. Knows nothing of models and of how they are tuned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from litee.errors import InputError
from litee.records import RewardLook
from litee.rundir import write_text
from litee.score.figures import Plot, line_plot
from litee.score.page import inline, render

#: Growth of answers, as a factor, from which the page warns.
GROWTH = 1.5
#: Loss in the share of finished answers from which the page warns.
UNFINISHED = 0.2


@dataclass(frozen=True, slots=True)
class RewardRun:
    """A finished run.

    Attributes:
        kind: `grpo` or `rloo`.
        step: of the weights that were kept.
        stopped_early: whether the guard stopped it.
        looks: in order of steps.
        kl: (step, KL divergence from the untuned model in nats) of the training answers.
    """

    kind: str
    step: int
    stopped_early: bool
    looks: tuple[RewardLook, ...]
    kl: tuple[tuple[int, float], ...]


def read_reward_run(folder: Path) -> RewardRun:
    """From the folder of `litee tune grpo` or `rloo`.

    Raises:
        InputError: there is no such run.
    """
    file = folder / "tuning.json"
    names = [field.name for field in fields(RewardLook)]
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        looks = tuple(RewardLook(**{name: one[name] for name in names}) for one in saved["looks"])
        kl = tuple((int(p["step"]), float(p["kl"])) for p in saved["curve"] if "kl" in p)
        return RewardRun(saved["kind"], saved["step"], saved["stopped_early"], looks, kl)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "name the folder of a finished `litee tune grpo` or `rloo`"
        raise InputError(f"no run on a reward: {error}", place=str(file), fix=fix) from error


def warnings_of(run: RewardRun) -> list[str]:
    """What should keep one from believing that the model got better.

    >>> looks = (RewardLook(0, 0.0, 1.0, 100, 0.9), RewardLook(9, 2.0, 0.5, 200, 0.5))
    >>> for line in warnings_of(RewardRun("grpo", 9, False, looks, ())): print(line)
    The rewards part: the training reward went from +0.000 to +2.000, the independent one from +1.000 to +0.500. The model learns the judge's faults.
    Answers grew from 100 to 200 characters: the judge may reward length alone.
    Fewer answers end by themselves: 50 % instead of 90 %.
    """  # noqa: E501
    if not run.looks:
        return ["No prompts were held out, so nothing shows whether the model got better."]
    found = []
    first, last = run.looks[0], run.looks[-1]
    if first.independent is None or last.independent is None:
        found.append(
            "No independent judge was asked: a reward that rises may be a reward that is gamed."
        )
    elif last.training > first.training and last.independent < first.independent:
        found.append(
            f"The rewards part: the training reward went from {first.training:+.3f} to "
            f"{last.training:+.3f}, the independent one from {first.independent:+.3f} to "
            f"{last.independent:+.3f}. The model learns the judge's faults."
        )
    if run.stopped_early:
        found.append(f"The run was stopped for it; the weights of step {run.step} were kept.")
    if last.characters > GROWTH * first.characters:
        found.append(
            f"Answers grew from {first.characters:.0f} to {last.characters:.0f} characters: the "
            "judge may reward length alone."
        )
    if last.finished < first.finished - UNFINISHED:
        found.append(
            f"Fewer answers end by themselves: {100 * last.finished:.0f} % instead of "
            f"{100 * first.finished:.0f} %."
        )
    return found


def reward_plots(run: RewardRun) -> list[Plot | None]:
    """Both rewards on held-out prompts, from where they began, and the KL divergence, by step."""
    return [_rewards(run.looks), _divergence(run.kl)]


def write_reward_page(folder: Path) -> Path:
    """Write `rewards.html` into the run's folder and return its path.

    Raises:
        InputError: there is no finished run.
    """
    run = read_reward_run(folder)
    gained = ""
    if run.looks:
        kept = next((k for k in run.looks if k.step == run.step), run.looks[-1])
        first = run.looks[0]
        gained = f"training reward {kept.training - first.training:+.3f}"
        if kept.independent is not None and first.independent is not None:
            gained += f", independent reward {kept.independent - first.independent:+.3f}"
        gained += ", on prompts that were not trained on"
    page = render(
        "rewards.html",
        title=f"{run.kind.upper()} on a judge's reward",
        headline=f"Weights of step {run.step}: {gained or 'nothing was held out'}.",
        cautions=warnings_of(run),
        run=run,
        plots=inline(reward_plots(run)),
    )
    path = folder / "rewards.html"
    write_text(path, page)
    return path


def _rewards(looks: Sequence[RewardLook]) -> Plot | None:
    if len(looks) < 2:
        return None
    first = looks[0]
    curves = {"being learnt": [(k.step, k.training - first.training) for k in looks]}
    if first.independent is not None:
        curves["independent"] = [
            (k.step, k.independent - first.independent) for k in looks if k.independent is not None
        ]
    ends = ", ".join(f"{label} {points[-1][1]:+.3f}" for label, points in curves.items())
    alt = f"Rewards at step {looks[-1].step}, from their start: {ends}."
    return line_plot("rewards", curves, x="step", y="reward, from its start", alt=alt, zero=True)


def _divergence(kl: Sequence[tuple[int, float]]) -> Plot | None:
    if not kl:
        return None
    alt = f"KL divergence of {kl[-1][1]:.3f} nats at step {kl[-1][0]}."
    return line_plot("kl", {"KL": kl}, x="step", y="KL, nats", alt=alt)
