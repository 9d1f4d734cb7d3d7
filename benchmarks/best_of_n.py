"""Best-of-n against KL: what the judge picks, and what an independent judge thinks of it.

    python benchmarks/best_of_n.py PROMPTS --judge JUDGE --independent OTHER

Writes results/best_of_n.json and docs/images/best_of_n.png. Every prompt is answered --samples
times; one set of samples gives the whole curve by the unbiased estimator over its order statistics.
The win rate of best-of-8 is measured on as many disjoint sets of eight samples as there are, each
against a ninth sample that the judge did not choose from. Answers lie in --work and are not written
twice: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from litee.predict.best_of import (
    Candidates,
    best_index,
    best_of_curve,
    candidate_rewards,
    kl_bound,
)
from litee.predict.generation import Engine
from litee.predict.generation_model import BASE, GenerationModel, adapter_sha256
from litee.predict.generation_prompts import Prompt, read_prompts
from litee.predict.generation_run import Task, answer_prompts
from litee.predict.generation_settings import GenerateSettings
from litee.predict.judge import Judge
from litee.progress import progress
from litee.records import Pair, Score
from litee.rundir import (
    Receipt,
    atomic_path,
    cpu_name,
    peak_rss_mb,
    sha256_file,
    versions,
    write_json,
)
from litee.score.comparison import compare_systems
from litee.score.intervals import RESAMPLES
from litee.score.results import new_result, write_result

BEST = 8
BLOCK = BEST + 1
#: Prompts that are answered in one run: more prompts are further runs of the same seeds.
PART = 80
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

NOTES = (
    "Rewards are in standard deviations of a single sample's reward within a prompt, from the "
    "mean of one sample, so that both judges share a scale. Intervals resample prompts. The KL "
    "divergence is the bound log n − (n − 1)/n, which equal rewards make an overestimate. The "
    "first part of the prompts (first_part) ended too close to one half to call, at equal length; "
    "they were then doubled, once, and everything else is computed over all of them."
)


@dataclass(frozen=True)
class Sampled:
    """(prompts, samples) answers."""

    prompts: tuple[tuple[str, ...], ...]
    answers: tuple[tuple[tuple[str, ...], ...], ...]

    @property
    def lengths(self) -> np.ndarray:
        """(prompts, samples) characters."""
        return np.array([[sum(map(len, a)) for a in row] for row in self.answers], dtype=float)


def sample(options: argparse.Namespace) -> list[Sampled]:
    """Answers to every prompt, in parts; parts that are there are not written again."""
    found = read_prompts(options.prompts).prompts[: options.limit]
    parts = []
    for start in range(0, len(found), PART):
        out = answers_file(options.work, start // PART)
        if not out.exists():
            write(found[start : start + PART], out, options)
        parts.append(read_answers(out, options.samples))
    return parts


def answers_file(work: Path, part: int) -> Path:
    return work / f"answers-{part}.jsonl"


def write(found: tuple[Prompt, ...], out: Path, options: argparse.Namespace) -> None:
    """Answer a part of the prompts."""
    settings = GenerateSettings(
        backbone=options.backbone,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        threads=options.threads,
        max_batch=64,
        dtype=options.dtype,
        seed=0,
    )
    inputs = {options.prompts.name: sha256_file(options.prompts)}
    adapters = {}
    if options.adapter is not None:
        adapters["adapter"] = options.adapter
        inputs["adapter"] = adapter_sha256(options.adapter)
    model = GenerationModel(settings, adapters)
    engine = Engine(model, max_batch=64, max_batch_tokens=settings.max_batch_tokens)
    name = "adapter" if adapters else BASE
    task = Task(found, settings, options.backbone, adapter=name, inputs=inputs)
    with progress("answering", len(found), "prompts") as advance:
        answer_prompts(task, engine, out, resume=True, advance=advance)


def read_answers(path: Path, samples: int) -> Sampled:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    prompts: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows:
        prompts.setdefault(_turns(row["prompt"]), []).append(_turns(row["answer"]))
    return Sampled(tuple(prompts), tuple(tuple(several[:samples]) for several in prompts.values()))


def _turns(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def rewards_of(judge: Judge, name: str, sampled: Sampled, work: Path, part: int) -> np.ndarray:
    """(prompts, samples) rewards of a part, kept in a file."""
    kept = work / f"rewards-{part}_{name}.json"
    stamp = [sha256_file(judge.folder / "judge.json"), sha256_file(answers_file(work, part))]
    if kept.exists():
        old = json.loads(kept.read_text(encoding="utf-8"))
        if old["of"] == stamp:
            return np.array(old["rewards"])
    found = []
    with progress(f"rewards by {name}", len(sampled.prompts), "prompts") as advance:
        for prompt, answers in zip(sampled.prompts, sampled.answers, strict=True):
            found += candidate_rewards(judge, [Candidates(prompt, answers)])
            advance(1)
    write_json(kept, {"of": stamp, "rewards": [list(row) for row in found]})
    return np.array(found)


def standardised(rewards: np.ndarray) -> np.ndarray:
    """Rewards from the mean of a prompt, in units of the typical deviation within prompts."""
    centred = rewards - rewards.mean(1, keepdims=True)
    spread = float(np.sqrt((centred**2).sum() / (rewards.shape[0] * (rewards.shape[1] - 1))))
    return centred / spread if spread > 0 else centred


def curve(
    by: np.ndarray, values: np.ndarray, sizes: Sequence[int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over prompts for every n, and its 95 % interval."""
    each = best_of_curve(by, values, sizes)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(each), (RESAMPLES, len(each)))
    low, high = np.percentile(each[drawn].mean(1), [2.5, 97.5], axis=0)
    return each.mean(0), low, high


def best_of_eight(
    sampled: Sampled, rewards: np.ndarray, independent: Judge
) -> tuple[list[Pair], list[int], np.ndarray]:
    """Pairs of a best-of-8 pick (A) and a ninth sample (B), their prompts, the verdicts."""
    pairs, groups = [], []
    for k, (prompt, answers) in enumerate(zip(sampled.prompts, sampled.answers, strict=True)):
        for start in range(0, len(answers) - BLOCK + 1, BLOCK):
            best = start + best_index(rewards[k, start : start + BEST].tolist())
            base = start + BEST
            pairs.append(Pair(f"{k}-{start}", prompt, answers[best], answers[base]))
            groups.append(k)
    verdicts = np.array([p.probabilities for p in independent.predict(pairs)])
    return pairs, groups, verdicts


def win_rates(
    pairs: Sequence[Pair], groups: Sequence[int], verdicts: np.ndarray, keep: np.ndarray
) -> dict[str, Score]:
    """Plainly and at equal length, over the pairs that are kept."""
    found = compare_systems(
        [pair for pair, kept in zip(pairs, keep, strict=True) if kept],
        {"independent": verdicts[keep]},
        names=("best of 8", "one sample"),
        groups=[group for group, kept in zip(groups, keep, strict=True) if kept],
    ).judged[0]
    return {"win_rate": found.win_rate, "win_rate_length_controlled": found.length_controlled}


def draw(
    lines: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], sizes: Sequence[int], path: Path
) -> None:
    """Reward against KL, with intervals."""
    kl = [kl_bound(n) for n in sizes]
    with mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for (name, (mean, low, high)), colour in zip(lines.items(), ("C0", "C3"), strict=False):
            axes.plot(kl, mean, "o-", color=colour, label=name, markersize=4)
            axes.fill_between(kl, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel("KL from one sample: log n − (n − 1)/n, nats")
        axes.set_ylabel("reward, in deviations of a sample")
        axes.set_xlim(-0.05, max(kl) * 1.05)
        for n, x in zip(sizes, kl, strict=True):
            if n in (1, 2, 4, 8, 16, 32):
                axes.annotate(f"n={n}", (x, 0.02), xycoords=("data", "axes fraction"), fontsize=8)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--judge", required=True, help="chooses")
    parser.add_argument("--independent", required=True, help="is asked about the choice")
    parser.add_argument("--backbone", default="smollm2-135m-instruct")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--limit", type=int, default=80, help="prompts")
    parser.add_argument("--samples", type=int, default=32, help=f"per prompt, {BLOCK} or more")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--repetition-penalty", type=float, default=1.2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/best_of_n"))
    parser.add_argument("--out", type=Path, default=Path("results/best_of_n.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/best_of_n.png"))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.samples < BLOCK:
        sys.exit(f"--samples must be {BLOCK} or more: best-of-{BEST} meets a sample of its own")
    sizes = [n for n in SIZES if n <= options.samples]
    parts = sample(options)
    started = time.perf_counter()
    sampled = Sampled(
        tuple(p for part in parts for p in part.prompts),
        tuple(a for part in parts for a in part.answers),
    )
    if min(map(len, sampled.answers)) < options.samples:
        sys.exit(f"{options.work} has fewer than {options.samples} answers to one prompt")
    judges = {k: Judge.from_pretrained(getattr(options, k)) for k in ("judge", "independent")}
    rewards = {
        k: np.concatenate([rewards_of(j, k, p, options.work, n) for n, p in enumerate(parts)])
        for k, j in judges.items()
    }
    scaled = {k: standardised(r) for k, r in rewards.items()}
    lines = {
        "the judge that chooses": curve(rewards["judge"], scaled["judge"], sizes),
        "independent judge": curve(rewards["judge"], scaled["independent"], sizes),
    }
    length = best_of_curve(rewards["judge"], sampled.lengths, sizes).mean(0)
    pairs, groups, verdicts = best_of_eight(sampled, rewards["judge"], judges["independent"])
    metrics, intervals = figures(lines, length, sizes)
    chosen = {"": np.ones(len(groups), bool)}
    if len(parts) > 1:
        chosen["first_part."] = np.array(groups) < len(parts[0].prompts)
    for prefix, keep in chosen.items():
        for name, score in win_rates(pairs, groups, verdicts, keep).items():
            if score.value is not None:
                metrics[prefix + name] = score.value
            if score.low is not None and score.high is not None:
                metrics[f"{prefix}{name}_low"] = score.low
                intervals[prefix + name] = (score.low, score.high)
    agreement = [
        float(np.corrcoef(a, b)[0, 1])
        for a, b in zip(rewards["judge"], rewards["independent"], strict=True)
        if np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    metrics["prompts"] = len(sampled.prompts)
    metrics["pairs"] = len(pairs)
    if agreement:
        metrics["correlation_of_judges_within_prompts"] = float(np.mean(agreement))
    metrics["seconds"] = round(time.perf_counter() - started + spent(options.work), 1)
    report(metrics, intervals, options)
    draw(lines, sizes, options.figure)


def spent(work: Path) -> float:
    """Seconds that the writing of the answers took, when it was done before."""
    receipts = sorted(work.glob("answers-*.receipt.json"))
    found = [json.loads(r.read_text(encoding="utf-8"))["receipt"]["seconds"] for r in receipts]
    return float(sum(found))


def figures(
    lines: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    length: np.ndarray,
    sizes: Sequence[int],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Flat metrics and intervals of the curves."""
    metrics, intervals = {}, {}
    for name, line in zip(("judge", "independent"), lines.values(), strict=True):
        for n, mean, low, high in zip(sizes, *line, strict=True):
            metrics[f"{name}.reward_{n}"] = round(float(mean), 4)
            intervals[f"{name}.reward_{n}"] = (round(float(low), 4), round(float(high), 4))
    for n, characters in zip(sizes, length, strict=True):
        metrics[f"characters_{n}"] = round(float(characters), 1)
        metrics[f"kl_{n}"] = round(kl_bound(n), 4)
    return metrics, intervals


def report(
    metrics: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    options: argparse.Namespace,
) -> None:
    for name, value in metrics.items():
        print(f"{name:<36} {value:.4f} {intervals.get(name, '')}")
    receipt = Receipt(seconds=metrics["seconds"], device=cpu_name(), threads=options.threads)
    receipt.peak_rss_mb, receipt.versions = round(peak_rss_mb(), 1), versions()
    receipt.inputs = {
        options.prompts.name: sha256_file(options.prompts),
        "judge": sha256_file(Path(options.judge) / "judge.json"),
        "independent": sha256_file(Path(options.independent) / "judge.json"),
    }
    command = shlex.join(["python", "benchmarks/best_of_n.py", *map(_short, sys.argv[1:])])
    result = new_result(
        options.out.stem, command, receipt, metrics, intervals=intervals, notes=NOTES
    )
    write_result(options.out.parent, result)


def _short(argument: str) -> str:
    return Path(argument).name if argument.startswith("/") else argument


if __name__ == "__main__":
    main()
