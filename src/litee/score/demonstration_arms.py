"""An arm of a study of demonstrations: they are read, chosen and learnt, and prompts are answered.

Each step lies in the store under what determines it, so that arms of several studies that agree in
a step share it, and an interrupted step goes on. Knows nothing of judges and of other arms.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.demonstrations import (
    detect_format,
    read_demonstrations,
    write_demonstrations,
)
from litee.collect.reading import Reading
from litee.collect.stack_exchange import site_name
from litee.curate.curating import Sources, curate
from litee.curate.vectors import Encode
from litee.finetune.backbones import find_backbone
from litee.finetune.heap import give_back_memory
from litee.predict.generation import Engine
from litee.predict.generation_model import BASE, GenerationModel
from litee.predict.generation_prompts import Prompt
from litee.predict.generation_run import Task, answer_prompts, receipt_path
from litee.progress import progress
from litee.rundir import Json, Receipt, sha256_file, sha256_json, write_json
from litee.score.demonstration_settings import Arm, ReadSettings
from litee.score.study_store import Store, filling

#: Points of a learning curve that are kept at most.
CURVE_POINTS = 60

#: Folders of a run's weights, named as `litee.finetune.sft` does, which takes seconds to import.
ADAPTER, MODEL = "adapter", "model"

_RECEIPT = "receipt.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Demonstrations of a file or folder, read.

    Attributes:
        file: JSON lines of them.
        counts: `candidates` seen and `kept`, and how many were `lost` to damage, `removed` by
            filters and changed (`noticed`), by reason.
    """

    file: Path
    counts: Mapping[str, Json]

    @property
    def words(self) -> str:
        """The counts in a line."""
        parts = [f"{self.counts['kept']:,} of {self.counts['candidates']:,} candidates"]
        for name in ("lost", "removed"):
            reasons = self.counts[name]
            assert isinstance(reasons, Mapping)
            parts += [f"{name}: {reasons_in_words(reasons)}"] if reasons else []
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The demonstrations of an arm.

    Attributes:
        file: JSON lines of the chosen ones.
        sources: source → how many of it.
        refused: why others could not be used → how many.
        receipt: what choosing cost.
    """

    file: Path
    sources: Mapping[str, int]
    refused: Mapping[str, int]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Learnt:
    """A tuned model.

    Attributes:
        weights: folder of the adapter, or of the model when all weights were trained.
        record: `tuning.json`: tokens, the chosen checkpoint and why, the curve thinned.
        receipt: what tuning cost.
    """

    weights: Path
    record: Mapping[str, Json]
    receipt: Receipt

    @property
    def whole(self) -> bool:
        """Whether all weights were trained."""
        return self.weights.name == MODEL


@dataclass(frozen=True, slots=True)
class Answers:
    """What an arm answered.

    Attributes:
        file: JSON lines as `litee generate` writes them.
        stop_rate: share of the answers, those of every turn, that the model ended itself.
        characters: mean length of the answers to a prompt, all turns together.
        receipt: what answering cost.
    """

    file: Path
    stop_rate: float
    characters: float
    receipt: Receipt


def read_source(file: Path, settings: ReadSettings, store: Store) -> Source:
    """Demonstrations of a file or folder in the project's own format.

    Raises:
        InputError: the file is broken, or holds nothing usable.
    """
    format = detect_format(file) if settings.format == "auto" else settings.format
    if format == "grounded" and file.is_file():
        file = file.parent  # one of the three files of a folder stands for it
    made_of: dict[str, Json] = {
        "settings": settings.model_dump(mode="json"),
        "file": digest_of(file),
        "name": file.name,  # readers take ids and sources from it
    }
    if format == "stack-exchange":
        made_of["site"] = site_name(file)
    out = store.folder("read", made_of) / "demonstrations.jsonl"
    counts = out.with_name("counts.json")  # written last
    with filling(out.parent):
        if not counts.is_file():
            reading = Reading(settings)
            kept = write_demonstrations(out, read_demonstrations([file], reading, format))
            found: dict[str, Json] = {
                "candidates": reading.read,
                "kept": kept,
                "lost": dict(reading.lost.counts),
                "removed": dict(reading.removed.counts),
                "noticed": dict(reading.noticed.counts),
            }
            write_json(counts, found)
    return Source(out, json.loads(counts.read_text(encoding="utf-8")))


def reasons_in_words(reasons: Mapping[str, Json]) -> str:
    """Reasons with their counts.

    >>> reasons_in_words({"no answer": 1200, "damaged": 1})
    '1,200 no answer, 1 damaged'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def choose(arm: Arm, files: Sequence[Path], asked: Path, store: Store) -> Chosen:
    """The demonstrations of an arm, none of them near a prompt that is asked.

    Args:
        arm: with demonstrations.
        files: its demonstrations, read.
        asked: JSON lines of the prompts.
        store: where they are kept.

    Raises:
        InputError: too few demonstrations can be used.
        ConfigError: quotas that cannot be met.
    """
    made_of: dict[str, Json] = {
        "settings": arm.curate.model_dump(mode="json"),
        "demonstrations": [sha256_file(file) for file in files],
        "prompts": sha256_file(asked),
    }
    out = store.folder("chosen", made_of) / "chosen.jsonl"
    summary = out.with_name("chosen.summary.json")
    with filling(out.parent):
        if not summary.is_file():
            sources = Sources(tuple(files), format="messages", against=(asked,))
            curate(sources, out, arm.curate, encode=_encoder(arm.curate.embedding))
    found = json.loads(summary.read_text(encoding="utf-8"))
    counts = {row["name"]: row["chosen"] for row in found["sources"] if row["chosen"]}
    refused = found["lost"] | found["refused"]
    return Chosen(out, counts, refused, Receipt(**found["receipt"]))


def _encoder(name: str) -> Encode | None:
    if name == "tfidf":
        return None
    neural = importlib.import_module("litee.score.neural")  # needs the extra `score`
    found: Encode = neural.SentenceEncoder(name).encode
    return found


def tune(arm: Arm, chosen: Chosen, store: Store) -> Learnt:
    """The arm's model, tuned on what was chosen, or gone on with.

    Raises:
        ModelError: the backbone cannot be used, or the loss is not a number.
    """
    digest = sha256_file(chosen.file)
    made_of: dict[str, Json] = {
        "settings": arm.tuning.model_dump(mode="json"),
        "backbone": find_backbone(arm.tuning.backbone).sha256,
        "demonstrations": digest,
    }
    run = store.folder("tuned", made_of)
    with filling(run):
        if not (run / _RECEIPT).is_file():
            demonstrations = list(
                read_demonstrations([chosen.file], Reading(DemonstrationSettings()), "messages")
            )
            inputs = {chosen.file.name: digest}
            _tuner()(demonstrations, arm.tuning, out=run, inputs=inputs, resume=True)
            give_back_memory()
    record = json.loads((run / "tuning.json").read_text(encoding="utf-8"))
    curve = record["curve"]
    steps = {"steps": curve[-1]["step"] if curve else record["chosen"]["step"]}
    weights = run / (MODEL if arm.tuning.method == "full" else ADAPTER)
    return Learnt(weights, record | steps | {"curve": thinned(curve)}, Receipt.of(run))


def _tuner() -> Callable[..., object]:
    module = importlib.import_module("litee.finetune.sft")  # imports TRL, which takes seconds
    found: Callable[..., object] = module.tune_sft
    return found


def answer(arm: Arm, learnt: Learnt | None, prompts: Sequence[Prompt], store: Store) -> Answers:
    """The answers of an arm's model to the prompts, or those that are there.

    Args:
        arm: how they are answered.
        learnt: the tuned model, None for the untuned one.
        prompts: all that are asked.
        store: where they are kept.
    """
    backbone = find_backbone(arm.tuning.backbone).sha256
    inputs = {"backbone": backbone}
    if learnt is not None:
        inputs[learnt.weights.name] = sha256_json(digest_of(learnt.weights))
    made_of: dict[str, Json] = {
        "settings": arm.answers.model_dump(mode="json", exclude={"threads", "backbone"}),
        "inputs": dict(inputs),
        "prompts": [[list(p.turns), p.system] for p in prompts],
    }
    out = store.folder("answers", made_of) / "answers.jsonl"
    with filling(out.parent):
        if not receipt_path(out).is_file():
            out.unlink(missing_ok=True)  # killed before its receipt; the journal still has it
            _write_answers(arm, learnt, prompts, inputs, out)
            give_back_memory()
    record = json.loads(receipt_path(out).read_text(encoding="utf-8"))
    return _answers(out, Receipt(**record["receipt"]))


def _write_answers(
    arm: Arm, learnt: Learnt | None, prompts: Sequence[Prompt], inputs: dict[str, str], out: Path
) -> None:
    settings = arm.answers
    adapters: dict[str, Path] = {}
    if learnt is not None and learnt.whole:
        settings = settings.model_copy(update={"backbone": str(learnt.weights)})
    elif learnt is not None:
        adapters = {ADAPTER: learnt.weights}
    model = GenerationModel(settings, adapters)
    for name in adapters:
        model.settle(name)
    name = "untuned" if learnt is None else "tuned"
    # what answers depend on is among the inputs, wherever the weights lie
    known = settings.model_copy(update={"backbone": Path(arm.answers.backbone).name})
    task = Task(tuple(prompts), known, name, adapter=next(iter(adapters), BASE), inputs=inputs)
    engine = Engine(model, max_batch=settings.max_batch, max_batch_tokens=settings.max_batch_tokens)
    with progress(f"{arm.name}: answering", len(prompts), "prompts") as advance:
        answer_prompts(task, engine, out, resume=True, advance=advance)


def _answers(file: Path, receipt: Receipt) -> Answers:
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    reasons: Counter[str] = Counter()
    characters = 0
    for row in rows:
        ended, text = row["finish_reason"], row["answer"]
        reasons.update(ended if isinstance(ended, list) else [ended])
        characters += sum(map(len, text))  # of a text, or of a list of texts
    return Answers(file, reasons["stop"] / reasons.total(), characters / len(rows), receipt)


def digest_of(path: Path) -> Json:
    """SHA-256 of a file; of a folder, name → that of each of its files.

    >>> digest_of(Path("no such folder"))
    {}
    """
    if path.is_file():
        return sha256_file(path)
    return {f.name: sha256_file(f) for f in sorted(path.glob("*")) if f.is_file()}


def thinned(curve: Sequence[Json], count: int = CURVE_POINTS) -> list[Json]:
    """At most `count` points of a curve, the last one among them.

    >>> thinned([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    step = max(1, -(-len(curve) // count))
    return list(curve[::-1][::step][::-1])
