"""Retrieval on DSTC9 with its gold snippets, and the cost of indexing 100,000 chunks.

    python benchmarks/retrieval.py --data ../shared/data/travel --out results/retrieval.json

Quality: the documents are the *answers* of the DSTC9 knowledge base, each led by its entity's name;
the questions are the gold entries' own questions, led by the name (the dialogues were not
published with the labels). The constant of rank fusion is chosen on the validation turns whose
gold entry is no test turn's. A second table has real dialogues: DSTC11 turns whose gold entries
are among DSTC9's. Speed: random words, one thread.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from litee.collect.documents import read_documents
from litee.collect.documents_chunks import ChunkSettings, cut_documents
from litee.collect.documents_turns import GroundedTurn, read_grounded
from litee.encode.retrieval import Retriever, SearchSettings, fuse
from litee.encode.retrieval_bm25 import Bm25
from litee.encode.retrieval_index import build_index, open_index
from litee.encode.retrieval_names import NameFinder, named_query
from litee.progress import progress
from litee.records import Chunk, Score
from litee.rundir import (
    Json,
    Receipt,
    RunDir,
    cpu_name,
    peak_rss_mb,
    sha256_file,
    versions,
    write_text,
)
from litee.score.neural import SentenceEncoder
from litee.score.results import new_result, write_result
from litee.score.retrieval import Query, evaluate_rankings, recall_at

METHODS = ("bm25", "embeddings", "hybrid")
CONSTANTS = (0, 1, 2, 5, 10, 20, 60)
DEPTH = 100


def turn_query(turn: GroundedTurn, names: NameFinder | None = None) -> Query:
    """The last user turn, with `names` led by the name that the dialogue is about."""
    text = turn.messages[-1].text
    if names is not None:
        text = named_query([message.text for message in turn.messages], names)
    return Query(text, frozenset(turn.documents), turn.dialogue)


def rank(retriever: Retriever, queries: Sequence[Query]) -> dict[str, list[list[str]]]:
    """Ranked chunk ids by words and by meaning."""
    found: dict[str, list[list[str]]] = {"bm25": [], "embeddings": []}
    with progress("searching", len(queries), "queries") as advance:
        for query in queries:
            for method, rows in found.items():
                settings = SearchSettings(method=method, k=DEPTH)  # type: ignore[arg-type]
                rows.append([h.chunk.document for h in retriever.search(query.text, settings)])
            advance(1)
    return found


def joined(found: dict[str, list[list[str]]], constant: int) -> list[list[str]]:
    """Rank fusion of both."""
    rows = []
    for words, meaning in zip(found["bm25"], found["embeddings"], strict=True):
        ids = list(dict.fromkeys([*words, *meaning]))
        place = {own: i for i, own in enumerate(ids)}
        order = fuse([[place[w] for w in words], [place[m] for m in meaning]], constant)
        rows.append([ids[i] for i, _ in order])
    return rows


def open_dstc9(data: Path, folder: Path, encoder: SentenceEncoder) -> Retriever:
    """The index of all DSTC9 answers; kept in `folder` from an earlier run."""
    knowledge = data / "dstc9/knowledge.json.gz"
    documents = read_documents([knowledge], questions=False)
    chunks = tuple(cut_documents(documents.documents, ChunkSettings()))
    if not (folder / "index.json").exists():
        manifest: dict[str, Json] = {"inputs": dict(documents.inputs)}
        run = RunDir(folder, manifest, resume=folder.exists())
        build_index(chunks, run, encoder=encoder, encoder_name="all-MiniLM-L6-v2")
    return open_index(folder, encoder=encoder)


def quality(
    data: Path, folder: Path
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Json]]:
    """Metrics and intervals on the test turns, and tables of the rest."""
    encoder = SentenceEncoder()
    retriever = open_dstc9(data, folder, encoder)
    base = data / "dstc9/knowledge.json.gz"
    test = read_grounded(data / "dstc9/test_labels.json.gz", base).turns
    held = {own for turn in test for own in turn.documents}
    val = read_grounded(data / "dstc9/val_labels.json.gz", base).turns
    val = tuple(turn for turn in val if not held & set(turn.documents))
    chosen, by_constant = choose(retriever, [turn_query(turn) for turn in val])
    metrics: dict[str, float] = {"rrf_constant": chosen}
    intervals: dict[str, tuple[float, float]] = {}
    queries = [turn_query(turn) for turn in test]
    found = rank(retriever, queries)
    report = evaluate_rankings(queries, {**found, "hybrid": joined(found, chosen)}, seed=0)
    for method, scores in report.metrics.items():
        put(metrics, intervals, method, scores)
    put(metrics, intervals, "hybrid_less_bm25", {"recall_at_5": report.gains["hybrid"]})
    metrics |= {"test_turns": report.queries, "test_gold": report.groups, "val_turns": len(val)}
    metrics["chunks"] = len(retriever.chunks)
    tables: dict[str, Json] = {"val_recall_at_5_by_constant": by_constant}
    tables["dstc11_dialogues"] = dialogues(data, retriever, chosen)
    return metrics, intervals, tables


def choose(retriever: Retriever, queries: list[Query]) -> tuple[int, dict[str, Json]]:
    """The constant with the best recall@5, the smaller one when equal."""
    found = rank(retriever, queries)
    gold = [q.gold for q in queries]
    table: dict[str, float] = {}
    for constant in CONSTANTS:
        rows = zip(joined(found, constant), gold, strict=True)
        table[str(constant)] = round(float(np.mean([recall_at(r, g, 5) for r, g in rows])), 5)
    best = max(table, key=lambda c: table[c])
    return int(best), dict(table)


def dialogues(data: Path, retriever: Retriever, constant: int) -> dict[str, Json]:
    """Recall@5 on DSTC11 turns: last user turn alone, and led by the name said last."""
    known = {(c.title, c.text): c.document for c in retriever.chunks}
    grounded = read_grounded(
        data / "dstc11/val_labels.json.gz",
        data / "dstc11/knowledge.json.gz",
        data / "dstc11/val_logs.json.gz",
    )
    table: dict[str, Json] = {}
    finder = NameFinder(chunk.title for chunk in retriever.chunks)
    for name, names in (("last_turn", None), ("last_turn_with_name", finder)):
        queries = []
        for turn in grounded.turns:
            entries = [grounded.entries[own] for own in turn.documents]
            gold = [known.get((e.entity, e.body)) for e in entries if e.question]
            if any(gold):
                query = turn_query(turn, names)
                queries.append(Query(query.text, frozenset(g for g in gold if g), query.group))
        found = rank(retriever, queries)
        report = evaluate_rankings(queries, {**found, "hybrid": joined(found, constant)}, seed=0)
        table[name] = {
            "turns": report.queries,
            **{m: ends(s["recall_at_5"]) for m, s in report.metrics.items()},
        }
    return table


def ends(score: Score) -> list[float]:
    """Value, low, high."""
    return [round(v, 4) for v in (score.value, score.low, score.high) if v is not None]


def put(
    metrics: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    method: str,
    scores: dict[str, Score],
) -> None:
    for name, score in scores.items():
        value, *rest = ends(score)
        metrics[f"{method}.{name}"] = value
        if rest:
            intervals[f"{method}.{name}"] = (rest[0], rest[1])


COMMON = (  # noqa: SIM905
    "the a hotel train lake old city museum ticket night walk serves near breakfast open until "
    "ten is are was you can find book room price cheap quiet station bus river view of and in to "
    "with for from one two three guests table garden parking pool staff friendly clean small"
).split()


def word(rank: int) -> str:
    """A word for a rank: common ones in English, the others of two to four syllables."""
    if rank <= len(COMMON):
        return COMMON[rank - 1]
    syllables = ""
    while rank:
        rank, digit = divmod(rank, 60)
        syllables += "bdfgklmnprst"[digit % 12] + "aeiou"[digit // 12]
    return syllables


def random_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Texts of 20 to 140 words with the frequencies of a language (Zipf, exponent 1.1)."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        numbers = rng.zipf(1.1, size=int(rng.integers(20, 141)))
        yield " ".join(word(int(n % 200_000) + 1) for n in numbers)


def speed(count: int) -> None:
    """Index random chunks in this process and time queries; prints JSON."""
    chunks = []
    for i, text in enumerate(random_texts(count)):
        chunks.append(Chunk(f"{i}", f"{i}", text, 0, len(text)))
    made = peak_rss_mb()
    with tempfile.TemporaryDirectory() as name:
        started, used = time.monotonic(), time.process_time()
        build_index(chunks, RunDir(Path(name) / "i", {}, resume=False), encoder=None)
        indexed, processor = time.monotonic() - started, time.process_time() - used
        peak = peak_rss_mb()
        started = time.monotonic()
        bm25 = open_index(Path(name) / "i").bm25
        opened = time.monotonic() - started
        assert isinstance(bm25, Bm25)
        found = {
            "indexed_chunks": count,
            "index_seconds": round(indexed, 2),
            "index_cpu_seconds": round(processor, 2),
            "index_peak_rss_mb": round(peak, 1),
            "index_peak_rss_less_chunks_mb": round(peak - made, 1),
            "open_seconds": round(opened, 2),
        }
        found |= query_times(chunks, bm25)
    print(json.dumps(found))


def query_times(chunks: list[Chunk], bm25: Bm25) -> dict[str, float]:
    """Wall and processor time per query of 12 words, each query new to the encoder's cache."""
    encoder = SentenceEncoder()
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((len(chunks), 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = Retriever(chunks, bm25, [vectors], encoder)
    found = {}
    for seed, method in enumerate(METHODS, start=2):
        settings = SearchSettings(method=method)  # type: ignore[arg-type]
        wall, processor = [], []
        for text in random_texts(220, seed=seed):
            query = " ".join(text.split()[:12])
            started, used = time.perf_counter(), time.process_time()
            whole.search(query, settings)
            wall.append(1000 * (time.perf_counter() - started))
            processor.append(1000 * (time.process_time() - used))
        for name, times in (("query_ms", wall), ("query_cpu_ms", processor)):
            for share in (50, 95):  # the first ones warm up
                value = float(np.percentile(times[20:], share))
                found[f"{name}_p{share}_{method}"] = round(value, 2)
    return found


def in_own_process(count: int) -> str:
    """What `speed` prints, in a process of its own, whose memory is its own too."""
    command = [sys.executable, __file__, "--speed", "--chunks", str(count)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/travel"))
    parser.add_argument("--work", type=Path, default=Path("runs/retrieval"), help="Kept parts.")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/retrieval.json"))
    parser.add_argument("--speed", action="store_true", help="Only the speed, in this process.")
    options = parser.parse_args()
    if options.speed:
        speed(options.chunks)
        return
    folder = options.work
    parts = {
        "quality": lambda: json.dumps(quality(options.data, folder / "dstc9_index")),
        "speed": lambda: in_own_process(options.chunks),
    }
    spent = {}
    for name, work in parts.items():  # a part that was finished before is not done again
        if not (folder / f"{name}.json").exists():
            started = time.monotonic()
            write_text(folder / f"{name}.json", work())
            write_text(folder / f"{name}.seconds", f"{time.monotonic() - started:.1f}")
        spent[name] = float((folder / f"{name}.seconds").read_text())
    found, ends_of, tables = json.loads((folder / "quality.json").read_text())
    intervals = {name: (low, high) for name, (low, high) in ends_of.items()}
    metrics: dict[str, float] = {**found, **json.loads((folder / "speed.json").read_text())}
    receipt = Receipt(device=cpu_name(), versions=versions())
    receipt.seconds = round(sum(spent.values()), 1)
    receipt.stages = dict(spent)
    receipt.peak_rss_mb = round(max(peak_rss_mb(), metrics["index_peak_rss_mb"]), 1)
    receipt.inputs = {
        f"dstc9/{name}.json.gz": sha256_file(options.data / f"dstc9/{name}.json.gz")
        for name in ("knowledge", "test_labels", "val_labels")
    }
    notes = (
        "Documents are the answers of the DSTC9 knowledge base without their questions, led by "
        "the entity's name; queries are the gold entries' questions, led by the name, because the "
        "dialogues were not published with the labels (with the questions in the documents every "
        "method finds nearly all). Intervals resample gold entries. The constant of rank fusion "
        "was chosen on validation turns whose gold entry is no test turn's. dstc11_dialogues: real "
        "last user turns whose gold entries are among DSTC9's, without and with the name of the "
        "entity that the dialogue said last (no gold used); most of these turns rest on reviews "
        "too, which are not in this index. Speed: random words, vectors of random numbers, one "
        "thread on one of two cores, at high priority, while other jobs kept the other one busy."
    )
    text = shlex.join(["python", "benchmarks/retrieval.py", *sys.argv[1:]])
    result = new_result(
        options.out.stem, text, receipt, metrics, intervals=intervals, tables=tables, notes=notes
    )
    write_result(options.out.parent, result)
    for key, value in metrics.items():
        print(f"{key}: {value:,}")


if __name__ == "__main__":
    main()
