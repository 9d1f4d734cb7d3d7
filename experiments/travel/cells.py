"""What one base model's runs left: scored answers by method and condition, their cost.

Reads files of run.sh and record.sh; knows nothing of figures and results files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litee.encode.raft_format import has_final_answer, quotes_in
from litee.rundir import Json
from litee.score.texts import GROUPS, MODEL_COLUMNS

#: Name in the files → name in the results.
METHODS: Mapping[str, str] = {
    "first": "first_document",
    "base": "base",
    "plain": "lora",
    "raft": "raft",
    "dpo": "raft_dpo",
}
#: What the comparison rests on. An answer without a word counts 0, lest silence pays.
SHOWN = ("token_f1", "rougeL", "similarity")
CLOSED, RETRIEVED = "closed", "retrieved"
CURVE = ("k0", "k2", "k4", "k8")
DRAWS = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """All turns under one method and condition.

    Attributes:
        scores: metric → (turns,), NaN where a turn has no score.
        empty: share of answers without a word.
        marked: share of answers with an answer mark.
        quotes: quotes that were written.
        verbatim: of those, how many stand in a document that was shown.
        answer_share: share of the characters written that is the answer which was scored.
        finished: share of answers that the model ended itself.
        tokens: mean number of tokens written.
        prompt_tokens: mean number of tokens read.
        seconds: wall time per answer, in batches.
    """

    scores: Mapping[str, Floats]
    empty: float
    marked: float
    quotes: int
    verbatim: int
    answer_share: float
    finished: float
    tokens: float
    prompt_tokens: float
    seconds: float

    def scored(self, metric: str) -> bool:
        """Whether any turn has a score."""
        return bool(np.isfinite(self.scores[metric]).any())

    def value(self, metric: str) -> float:
        """The mean over the turns that have a score."""
        return float(np.nanmean(self.scores[metric]))


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Means of resampled turns; the same turns for every cell, so that differences are paired."""

    counts: Floats

    @classmethod
    def of(cls, turns: int) -> Bootstrap:
        """Draws of `turns` turns with replacement."""
        picks = np.random.default_rng(0).integers(turns, size=(DRAWS, turns))
        return cls(np.stack([np.bincount(row, minlength=turns) for row in picks]).astype(float))

    def means(self, values: Floats) -> Floats:
        """(draws,) means, over the turns that have a value."""
        known = np.isfinite(values)
        found: Floats = self.counts @ np.where(known, values, 0.0) / (self.counts @ known)
        return found

    def ends(self, *signed: tuple[int, Floats]) -> tuple[float, float]:
        """95 % interval of a signed sum of means."""
        total = sum(sign * self.means(values) for sign, values in signed)
        low, high = np.percentile(total, (2.5, 97.5))
        return round(float(low), 4), round(float(high), 4)


def read_cells(folder: Path) -> dict[tuple[str, str], Cell]:
    """(method, condition) → cell, of every method whose answers were scored.

    Args:
        folder: of the base model.
    """
    clean = rows(folder / "scored.all", lambda row: (row["system"], row["id"]))
    scores: dict[tuple[str, str], dict[str, str]] = {}
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as handle:
        for scored in csv.DictReader(handle):
            scores[scored["system"], scored["id"]] = scored
    written: dict[tuple[str, str], dict[str, Json]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for file in sorted(folder.glob("*.clean.jsonl")):
        method, test, *_ = file.name.split(".")
        own = folder / f"{method}.{test}.jsonl"
        written |= rows(own, lambda row: (row["system"], row["id"]))
        receipt = json.loads((folder / f"{method}.{test}.receipt.json").read_text())
        for row in rows(own, lambda row: row["id"]):
            seconds[method, row.partition("/")[0]] = (
                receipt["receipt"]["seconds"] / receipt["answers"]
            )
    found = {}
    for key in sorted({(system, own.partition("/")[0]) for system, own in clean}):
        keys = [pair for pair in clean if (pair[0], pair[1].partition("/")[0]) == key]
        found[key] = _cell([(clean[k], scores[k], written.get(k)) for k in keys], seconds.get(key))
    return found


def rows(file: Path, key: Callable[[dict[str, Json]], object]) -> dict[object, dict[str, Json]]:
    """Rows of JSON lines by their key, in order."""
    with file.open(encoding="utf-8") as lines:
        return {key(row): row for row in map(json.loads, lines)}


def _cell(
    found: Sequence[tuple[dict[str, Json], dict[str, str], dict[str, Json] | None]],
    seconds: float | None,
) -> Cell:
    """One cell; its turns in the order of their ids, so that cells are paired."""
    found = sorted(found, key=lambda one: str(one[0]["id"]).partition("/")[2])
    names = [name for name in found[0][1] if name in {*GROUPS["text"], *MODEL_COLUMNS}]
    table = {
        name: np.array([float(scored[name] or "nan") for _, scored, _ in found]) for name in names
    }
    empty = np.isnan(table["similarity"])  # references and questions are there: no word was written
    for name in SHOWN:
        table[name] = np.where(empty, 0.0, table[name])
    quotes = [(q, clean["contexts"]) for clean, _, _ in found for q in quotes_in(clean["written"])]
    made = [one for _, _, one in found if one is not None]
    return Cell(
        table,
        float(empty.mean()),
        float(np.mean([has_final_answer(clean["written"]) for clean, _, _ in found])),
        len(quotes),
        sum(any(quote in text for text in texts) for quote, texts in quotes),
        sum(len(clean["answer"]) for clean, _, _ in found)
        / max(1, sum(len(clean["written"]) for clean, _, _ in found)),
        float(np.mean([one["finish_reason"] == "stop" for one in made])) if made else 1.0,
        float(np.mean([one["tokens"] for one in made])) if made else 0.0,
        float(np.mean([one["prompt_tokens"] for one in made])) if made else 0.0,
        seconds or 0.0,
    )
