"""Items to files: training, validation and test rows, the report of what was made and dropped.

Knows nothing of where items come from and of how models are tuned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.collect.gathering import Tally
from litee.encode.raft_format import has_marks, quotes_in
from litee.encode.raft_items import RaftItem
from litee.encode.raft_rows import RaftRow, RowMaker, oracle_choice
from litee.encode.raft_settings import RaftSettings
from litee.encode.raft_split import Split, check_leaks, split_items, usable_chunks
from litee.encode.retrieval import Retriever, SearchSettings
from litee.encode.retrieval_bm25 import Bm25
from litee.errors import InputError
from litee.progress import progress
from litee.records import Chunk, Dropped
from litee.rundir import Json, atomic_writer, write_json

MARKS = "holds marks of the row format"
NO_ORACLE = "answered by a document that is not there"


@dataclass(frozen=True, slots=True)
class RaftReport:
    """What was built.

    Attributes:
        files: file name → rows.
        dropped: items that gave no row, by reason.
        oracle_shown: training rows whose documents hold the oracles.
        quotes: quotes in all rows; every one stands verbatim in a document of its row.
        retrieved_recall: share of oracles among the documents of the retrieved test file, None
            without test rows.
        chunks: documents that could be distractors, per part.
    """

    files: Mapping[str, int]
    dropped: Dropped
    oracle_shown: int
    quotes: int
    retrieved_recall: float | None
    chunks: Mapping[str, int]


def build_raft(
    items: Sequence[RaftItem],
    chunks: Sequence[Chunk],
    settings: RaftSettings,
    out: Path,
    *,
    search: Retriever | None = None,
) -> RaftReport:
    """Split, make all rows, check them, write them.

    Files: `train.jsonl` and `validation.jsonl` with documents, `*.plain.jsonl` the same questions
    without (supervised fine-tuning), `test.k<n>.jsonl` with oracles and n distractors,
    `test.retrieved.jsonl` with what `search` finds, `test.closed.jsonl` without documents.

    Args:
        items: their oracles are among the chunks.
        chunks: documents to show.
        settings: of the build.
        out: folder that exists.
        search: for retrieved documents and hard distractors; None looks words up.

    Raises:
        InputError: no training row is left.
        LeakError: a training row holds the answer to a test question.
    """
    dropped = Tally()
    by_id = {chunk.id: chunk for chunk in chunks if not has_marks(chunk.titled)}
    usable = [item for item in items if not _refuse(item, by_id, dropped)]
    shares = (settings.validation_share, settings.test_share)
    split = split_items(usable, by_id, shares, seed=settings.seed, dropped=dropped)
    if not split.items["train"]:
        reasons = ", ".join(f"{n:,} × {r}" for r, n in dropped.counts.items())
        fix = "give more documents or questions, or lower the other parts' shares"
        raise InputError(f"no training row is left ({reasons or 'no questions'})", fix=fix)
    files: dict[str, int] = {}
    parts: dict[str, int] = {}
    rows: list[RaftRow] = []
    for part in ("train", "validation"):
        maker = _maker(part, by_id, split, settings)
        parts[part] = len(maker.retriever.chunks)
        made = _trained(part, maker, split.items[part])
        rows += made
        plain = [maker.closed(item) for item in split.items[part]]
        _check(f"{part}.jsonl", [*made, *plain], split.barred(part))
        files |= _write(out, f"{part}.jsonl", made, chat=True)
        files |= _write(out, f"{part}.plain.jsonl", plain, chat=True)
    tests = _tests(by_id, split, settings, search)
    for name, made in tests.items():
        files |= _write(out, name, made, chat=False)
        rows += made
    report = RaftReport(
        files,
        dropped.frozen(),
        sum(row.oracle_shown for row in rows[: files["train.jsonl"]]),
        sum(len(quotes_in(row.reasoning)) for row in rows),
        _recall(tests["test.retrieved.jsonl"]),
        parts,
    )
    write_json(out / "report.json", report_json(report, settings))
    return report


def report_json(report: RaftReport, settings: RaftSettings) -> dict[str, Json]:
    """The report as plain JSON."""
    return {
        "files": dict(report.files),
        "dropped": dict(report.dropped.counts),
        "dropped_examples": {k: list(v) for k, v in report.dropped.examples.items()},
        "oracle_shown": report.oracle_shown,
        "quotes": report.quotes,
        "quotes_verbatim": report.quotes,
        "retrieved_recall": report.retrieved_recall,
        "chunks": dict(report.chunks),
        "settings": settings.model_dump(mode="json"),
    }


def _refuse(item: RaftItem, chunks: Mapping[str, Chunk], dropped: Tally) -> bool:
    reason = ""
    if any(own not in chunks for own in item.oracles):
        reason = NO_ORACLE
    elif has_marks(item.question) or has_marks(item.answer):
        reason = MARKS
    if reason:
        dropped.add(reason, item.id)
    return bool(reason)


def _maker(
    part: str,
    chunks: Mapping[str, Chunk],
    split: Split,
    settings: RaftSettings,
) -> RowMaker:
    pool = usable_chunks(list(chunks.values()), part, split)
    if not pool:
        fix = "give more documents, or lower validation_share and test_share"
        raise InputError(f"no document is left for the {part} rows", fix=fix)
    return RowMaker(chunks, Retriever(pool, Bm25.build(c.titled for c in pool)), settings)


def _trained(part: str, maker: RowMaker, items: Sequence[RaftItem]) -> list[RaftRow]:
    """Training rows, a share of them without oracles; validation rows always have theirs."""
    share = maker.settings.oracle_share if part == "train" else 1.0
    shown = oracle_choice(len(items), share, maker.settings.seed)
    with progress(f"{part} rows", len(items)) as advance:
        made = []
        for item, choice in zip(items, shown, strict=True):
            made.append(maker.train(item, choice))
            advance(1)
    return made


def _tests(
    chunks: Mapping[str, Chunk],
    split: Split,
    settings: RaftSettings,
    search: Retriever | None,
) -> dict[str, list[RaftRow]]:
    items = split.items["test"]
    maker = _maker("test", chunks, split, settings)
    retriever = maker.retriever if search is None else search
    method = "hybrid" if retriever.vectors else "bm25"
    wanted = SearchSettings.model_validate({"method": method, "k": settings.retrieved})
    found = {
        f"test.k{count}.jsonl": [maker.test(item, count) for item in items]
        for count in settings.test_distractors
    }
    found["test.retrieved.jsonl"] = [maker.retrieved(item, retriever, wanted) for item in items]
    found["test.closed.jsonl"] = [maker.closed(item) for item in items]
    return found


def _recall(rows: Sequence[RaftRow]) -> float | None:
    wanted = found = 0
    for row in rows:
        shown = {own for own, _ in row.documents}
        wanted += len(row.oracles)
        found += len(shown & set(row.oracles))
    return found / wanted if wanted else None


def _check(place: str, rows: Sequence[RaftRow], gold: Iterable[str]) -> None:
    """The rows are read again as text: what they hold, not how they were made, is checked."""
    texts = {
        f"{row.id} ({number})": f"{row.prompt} {row.completion}"
        for number, row in enumerate(rows, start=1)
    }
    check_leaks(texts, gold, place)


def _write(out: Path, name: str, rows: Sequence[RaftRow], *, chat: bool) -> dict[str, int]:
    with atomic_writer(out / name) as handle:
        for row in rows:
            handle.write(json.dumps(row_json(row, chat=chat), ensure_ascii=False) + "\n")
    return {name: len(rows)}


def row_json(row: RaftRow, *, chat: bool) -> dict[str, Json]:
    """A row of a file: `chat` has messages to tune on, else a prompt and a reference to score."""
    head: dict[str, Json] = {"id": row.id}
    if chat:
        told = row.completion if row.documents else row.answer
        head["messages"] = [
            {"role": "user", "content": row.prompt},
            {"role": "assistant", "content": told},
        ]
    else:
        head |= {"prompt": row.prompt, "reference": row.answer}
        head |= {"contexts": [text for _, text in row.documents], "gold": list(row.gold)}
    return {
        **head,
        "question": row.question,
        "documents": [own for own, _ in row.documents],
        "oracles": list(row.oracles),
        "oracle_shown": row.oracle_shown,
        "answer": row.answer,
        "group": row.group,
        "source": "raft",
    }
