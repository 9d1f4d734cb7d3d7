"""Answers a file of prompts: journal, resume, best-of-n, receipt.

Prompts of like length are answered together in units that do not depend on what was finished
before, so a killed run resumes to the answers that an undisturbed one would have written. Knows
nothing of the command line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from litee.errors import ConfigError
from litee.finetune.device import device_name
from litee.predict.best_of import Candidates, Predictor, best_index, candidate_rewards, kl_bound
from litee.predict.generation import Engine, Request, Written
from litee.predict.generation_journal import Found, Journal, journal_path
from litee.predict.generation_model import BASE
from litee.predict.generation_prompts import Prompt
from litee.predict.generation_sampling import Sampling
from litee.predict.generation_settings import GenerateSettings
from litee.records import Completion
from litee.rundir import (
    Json,
    Receipt,
    atomic_writer,
    peak_rss_mb,
    sha256_json,
    usable_cores,
    versions,
    write_json,
)

#: Answers per unit, in batches.
UNIT_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done.

    Attributes:
        prompts: to answer.
        settings: how.
        name: of the system, as it stands in the output.
        adapter: which adapter writes, `BASE` for none.
        inputs: what went in → sha256 (prompts file, weights, adapter, judge).
        keep_all: write every candidate of best-of-n, not only the best one.
    """

    prompts: tuple[Prompt, ...]
    settings: GenerateSettings
    name: str
    adapter: str = BASE
    inputs: Mapping[str, str] = field(default_factory=dict)
    keep_all: bool = False

    @property
    def per_prompt(self) -> int:
        """Answers that are written per prompt."""
        return max(self.settings.best_of, self.settings.samples)

    @property
    def identity(self) -> str:
        """Digest of everything that the answers depend on."""
        own = self.settings.model_dump(mode="json", exclude={"threads"})
        keys = [prompt.key for prompt in self.prompts]
        return sha256_json([own, self.name, self.adapter, dict(self.inputs), keys])


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out.

    Attributes:
        answers: written to the output.
        written: answers that the model wrote, candidates included.
        stop_rate: share of written answers whose every turn the model ended itself.
        tokens: tokens written.
        seconds: wall time, summed over resumed sessions.
    """

    answers: int
    written: int
    stop_rate: float
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens written per second; reading of prompts and judging count as time."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def receipt_path(out: Path) -> Path:
    """`answers.jsonl` → `answers.receipt.json`."""
    return out.with_suffix(".receipt.json")


def answer_prompts(
    task: Task,
    engine: Engine,
    out: Path,
    *,
    judge: Predictor | None = None,
    resume: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> Summary:
    """Answer every prompt and write `out` (JSON lines) and its receipt, both at once at the end.

    Args:
        task: prompts and settings.
        engine: writes the answers.
        out: output; work in progress lies beside it.
        judge: gives rewards; needed for best-of-n.
        resume: go on with an interrupted run.
        advance: called with the number of finished prompts.

    Raises:
        ConfigError: `out` exists, an interrupted run is there and `resume` is false, or it had
            other settings; best-of-n without a judge.
    """
    if task.settings.best_of > 1 and judge is None:
        fix = "name a judge with --judge"
        raise ConfigError(f"best_of = {task.settings.best_of} needs a judge", fix=fix)
    journal = Journal(journal_path(out), task.identity)
    done = journal.open(out, resume=resume)
    try:
        for unit in units(task):
            if not all(prompt.key in done for prompt in unit):
                started = time.monotonic()
                found = _answer(task, unit, engine)
                if judge is not None:
                    found = _judge(found, judge)
                journal.write(found, time.monotonic() - started)
                done |= found
            advance(len(unit))
    finally:
        journal.close()
    return _finish(task, done, journal, out)


def units(task: Task) -> Iterator[tuple[Prompt, ...]]:
    """Prompts that are answered together: neighbours in length, the longest first."""
    count = -(-UNIT_BATCHES * task.settings.max_batch // task.per_prompt)
    ordered = sorted(task.prompts, key=lambda p: (-sum(map(len, p.turns)), p.key))
    for start in range(0, len(ordered), count):
        yield tuple(ordered[start : start + count])


@dataclass(slots=True)
class _Draft:
    prompt: Prompt
    sample: int
    turns: list[Written] = field(default_factory=list)


def _answer(task: Task, unit: Sequence[Prompt], engine: Engine) -> Found:
    """All samples of all prompts; a turn is asked when the one before it is answered."""
    settings = task.settings
    drafts = [_Draft(prompt, k) for prompt in unit for k in range(task.per_prompt)]
    texts: dict[int, list[str]] = {}
    owners: dict[int, _Draft] = {}

    def ask(draft: _Draft) -> None:
        seed = draft.prompt.seed(settings.seed, draft.sample, len(draft.turns))
        messages = draft.prompt.messages([turn.text for turn in draft.turns])
        key = engine.add(Request(messages, Sampling.of(settings, seed=seed), task.adapter))
        owners[key], texts[key] = draft, []

    for draft in drafts:
        ask(draft)
    while engine.busy:
        for delta in engine.step():
            texts[delta.key].append(delta.text)
            if delta.finish_reason:
                draft, text = owners.pop(delta.key), "".join(texts.pop(delta.key))
                draft.turns.append(
                    Written(text, delta.finish_reason, delta.tokens, delta.prompt_tokens)
                )
                if len(draft.turns) < len(draft.prompt.turns):
                    ask(draft)
    found: dict[str, list[Completion]] = {}
    for draft in drafts:
        found.setdefault(draft.prompt.key, []).append(_completion(draft, task))
    return {key: tuple(several) for key, several in found.items()}


def _completion(draft: _Draft, task: Task) -> Completion:
    return Completion(
        draft.prompt.id,
        draft.prompt.turns,
        tuple(turn.text for turn in draft.turns),
        task.name,
        draft.sample,
        task.settings.seed,
        tuple(turn.finish_reason for turn in draft.turns),
        sum(turn.tokens for turn in draft.turns),
        sum(turn.prompt_tokens for turn in draft.turns),
    )


def _judge(found: Found, judge: Predictor) -> Found:
    sets = [Candidates(c[0].prompt, tuple(one.response for one in c)) for c in found.values()]
    rewards = candidate_rewards(judge, sets)
    return {
        key: tuple(replace(one, reward=round(r, 6)) for one, r in zip(several, row, strict=True))
        for (key, several), row in zip(found.items(), rewards, strict=True)
    }


def _finish(task: Task, done: Found, journal: Journal, out: Path) -> Summary:
    written = [one for prompt in task.prompts for one in done[prompt.key]]
    count = 0
    with atomic_writer(out) as stream:
        for prompt in task.prompts:
            for row in _rows(task, done[prompt.key]):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    stops = sum(one.stopped for one in written) / len(written)
    tokens = sum(one.tokens for one in written)
    summary = Summary(count, len(written), stops, tokens, journal.seconds)
    _write_receipt(task, summary, out)
    journal.path.unlink(missing_ok=True)
    return summary


def _rows(task: Task, several: Sequence[Completion]) -> Iterator[dict[str, Json]]:
    """Rows of one prompt: all its answers, or the best one."""
    best: int | None = None
    if task.settings.best_of > 1:
        best = best_index([one.reward for one in several if one.reward is not None])
    for one in several:
        if best is not None and not task.keep_all and one.sample != best:
            continue
        single = len(one.prompt) == 1
        row: dict[str, Json] = {
            "id": one.id,
            "prompt": one.prompt[0] if single else one.prompt,
            "answer": one.response[0] if single else one.response,
            "system": one.model,
            "sample": one.sample,
            "finish_reason": one.finish_reasons[0] if single else one.finish_reasons,
            "tokens": one.tokens,
            "prompt_tokens": one.prompt_tokens,
        }
        if one.reward is not None:
            row["reward"] = one.reward
        if best is not None and task.keep_all:
            row["best"] = one.sample == best
        yield row


def _write_receipt(task: Task, summary: Summary, out: Path) -> None:
    settings = task.settings
    receipt = Receipt(
        seconds=round(summary.seconds, 3),
        tokens=summary.tokens,
        peak_rss_mb=round(peak_rss_mb(), 1),
        device=device_name(),
        threads=settings.threads or usable_cores(),
        seed=settings.seed,
        versions=versions(),
        inputs=dict(task.inputs),
    )
    found: dict[str, Json] = {
        "answers": summary.answers,
        "written": summary.written,
        "stop_rate": round(summary.stop_rate, 4),
        "tokens_per_second": round(summary.tokens_per_second, 2),
        "settings": settings.model_dump(mode="json"),
    }
    if settings.best_of > 1:
        found["kl_bound_nats"] = round(kl_bound(settings.best_of), 4)
    write_json(receipt_path(out), {**found, "receipt": receipt.to_json()})
