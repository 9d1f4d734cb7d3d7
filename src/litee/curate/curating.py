"""`curate`: demonstrations to the chosen ones, an explanation for each, and a comparison.

Slow steps are kept in a folder beside the output until all is written, so that an interrupted
run goes on where it was. Knows nothing of models: another encoder comes as a function.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litee.collect.demonstration_settings import DemonstrationSettings
from litee.collect.reading import Reading
from litee.curate.choosing import Candidates, Task, choose, nearest
from litee.curate.comparison import Measures, Profile, compare
from litee.curate.duplicates import Repeats, find_repeats
from litee.curate.leaks import Leaks, read_prompts
from litee.curate.pool import Pool, read_pool
from litee.curate.quotas import Cell, Gate, make_quotas
from litee.curate.scores import read_scores
from litee.curate.screening import Screened, screen
from litee.curate.settings import CurateSettings
from litee.curate.topics import cluster, name_clusters, topic_count
from litee.curate.vectors import Encode, Vectors, tfidf_vectors, unit
from litee.errors import ConfigError, InputError
from litee.progress import progress
from litee.rundir import (
    Json,
    Receipt,
    atomic_path,
    atomic_writer,
    cpu_name,
    peak_rss_mb,
    sha256_file,
    sha256_json,
    versions,
    write_json,
    write_text,
)

NOT_CHOSEN = "adds less than the chosen ones"
FULL = "left out by the quotas"
CHOSEN = "chosen"

_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Sources:
    """What goes in.

    Attributes:
        demonstrations: files of one format.
        format: of these files.
        against: files of evaluation prompts that must not leak.
        scores: files with an id and quality columns per row.
        salvage: keep what precedes the damage of a broken file.
    """

    demonstrations: tuple[Path, ...]
    format: str = "auto"
    against: tuple[Path, ...] = ()
    scores: tuple[Path, ...] = ()
    salvage: bool = False

    def hashes(self) -> dict[str, str]:
        """File → sha256; of a folder, its files."""
        found = {}
        for path in (*self.demonstrations, *self.against, *self.scores):
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found.update({str(f): sha256_file(f) for f in files if f.is_file()})
        return found


@dataclass(frozen=True, slots=True)
class Curated:
    """What came out.

    Attributes:
        out: the chosen demonstrations, in the order in which they were chosen.
        explanations: one line per demonstration that was read.
        summary: counts, comparison and receipt as JSON.
        read: demonstrations read.
        lost: records that could not be read, by reason.
        refused: demonstrations that could not be used, by reason, while reading and screening.
        usable: demonstrations among which was chosen.
        profiles: chosen, random, longest.
        topics: topic → (read, usable, chosen).
        sources: likewise.
        receipt: time and memory.
    """

    out: Path
    explanations: Path
    summary: Path
    read: int
    lost: dict[str, int]
    refused: dict[str, int]
    usable: int
    profiles: dict[str, Profile]
    topics: dict[str, tuple[int, int, int]]
    sources: dict[str, tuple[int, int, int]]
    receipt: Receipt = field(default_factory=Receipt)


def curate(
    sources: Sources, out: Path, settings: CurateSettings, *, encode: Encode | None = None
) -> Curated:
    """Choose demonstrations and write them with their explanations.

    Writes `out`, and beside it `….explanations.jsonl` and `….summary.json`.

    Args:
        sources: files that go in.
        out: the JSON lines to write.
        settings: what to choose, and how.
        encode: texts to unit vectors, when `settings.embedding` is not `tfidf`.

    Raises:
        InputError: a file is broken, or fewer than n demonstrations are usable.
        ConfigError: quotas that cannot be met, a quality that nobody has.
        ResourceError: the disk is full.
    """
    started = time.monotonic()
    if (encode is None) != (settings.embedding == "tfidf"):
        raise ConfigError(f"embedding {settings.embedding!r} needs its encoder", fix="use tfidf")
    inputs = sources.hashes()
    work = _work_folder(out, sources, settings, inputs)
    prompts = read_prompts(sources.against)
    reading = Reading(DemonstrationSettings.model_validate({"salvage": sources.salvage}))
    pool = _pool(sources, prompts, settings, reading, work)
    repeats = _repeats(pool, prompts, settings, work)
    screened = screen(pool, repeats, settings)
    _check_number(sources, screened, settings.n)
    vectors = _vectors(pool, settings, encode, work)
    labels, topics = _topics(pool, vectors, settings)
    measures = Measures(pool, repeats, screened.leaking, screened.quality, vectors, labels)
    chosen, gate, cells = _choose(measures, screened, topics, settings)
    profiles = compare(measures, chosen, clients=settings.clients, seed=settings.seed)
    explanations = out.with_name(f"{out.stem}.explanations.jsonl")
    _explain(explanations, measures, screened, chosen, cells, gate)
    write_text(out, "".join(pool.lines(chosen)))
    usable = screened.usable.tolist()
    found = Curated(
        out,
        explanations,
        out.with_name(f"{out.stem}.summary.json"),
        read=len(pool),
        lost=dict(reading.lost.counts),
        refused={**reading.removed.counts, **screened.counts()},
        usable=len(usable),
        profiles=profiles,
        topics=_shares(topics, usable, chosen),
        sources=_shares(pool.sources, usable, chosen),
        receipt=_receipt(started, inputs, settings.seed),
    )
    write_json(found.summary, _summary(found, settings))
    shutil.rmtree(work, ignore_errors=True)
    return found


def _pool(
    sources: Sources,
    prompts: Sequence[str],
    settings: CurateSettings,
    reading: Reading,
    work: Path,
) -> Pool:
    return read_pool(
        sources.demonstrations,
        work / "pool.jsonl",
        reading,
        format=sources.format,
        columns=settings.quality,
        scores=read_scores(sources.scores),
        leaks=Leaks(prompts, n=settings.ngram, share=settings.ngram_share) if prompts else None,
    )


def _receipt(started: float, inputs: dict[str, str], seed: int) -> Receipt:
    receipt = Receipt(device=cpu_name(), versions=versions(), inputs=inputs, seed=seed)
    receipt.seconds = round(time.monotonic() - started, 3)
    receipt.peak_rss_mb = round(peak_rss_mb(), 1)
    return receipt


def _work_folder(
    out: Path, sources: Sources, settings: CurateSettings, inputs: dict[str, str]
) -> Path:
    """The folder of slow steps; what was made from other files or settings goes.

    Only what changes these steps counts, so that after a refused quota nothing is done twice.
    """
    work = out.with_name(f"{out.name}.work")
    made_with: list[Json] = [settings.near, settings.seed, settings.embedding, settings.embed]
    roles = [[str(path) for path in part] for part in (sources.demonstrations, sources.against)]
    key = sha256_json([*made_with, sources.format, sources.salvage, inputs, *roles])
    mark = work / "key"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        write_text(mark, key)
    return work


def _repeats(pool: Pool, prompts: Sequence[str], settings: CurateSettings, work: Path) -> Repeats:
    file = work / "repeats.npz"
    if file.is_file():
        with np.load(file) as kept:
            return Repeats(kept["prompts"], kept["answers"], kept["evaluated"])
    found = find_repeats(pool, prompts, near=settings.near, seed=settings.seed)
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, prompts=found.prompts, answers=found.answers, evaluated=found.evaluated)
    return found


def _check_number(sources: Sources, screened: Screened, n: int) -> None:
    usable = len(screened.usable)
    if usable >= n:
        return
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in screened.counts().items())
    problem = f"{usable:,} of {len(screened.reasons):,} demonstrations are usable, n = {n:,}"
    fix = "lower --n, loosen what is named above, or collect more"
    place = ", ".join(map(str, sources.demonstrations))
    raise InputError(f"{problem} ({reasons})" if reasons else problem, place=place, fix=fix)


def _vectors(pool: Pool, settings: CurateSettings, encode: Encode | None, work: Path) -> Vectors:
    """Unit vectors of all demonstrations; those of an encoder are kept chunk by chunk."""
    both = settings.embed == "both"
    texts = [
        f"{prompt}\n{answer}" if both else prompt
        for prompt, answer in zip(pool.prompts, pool.answers, strict=True)
    ]
    if encode is None:
        return tfidf_vectors(texts, dimensions=settings.dimensions, seed=settings.seed)
    parts: list[Vectors] = []
    with progress("embedding", len(texts), "texts") as advance:
        for start in range(0, len(texts), _CHUNK):
            file = work / f"vectors-{start:09d}.npy"
            if file.is_file():
                parts.append(np.load(file))
            else:
                parts.append(unit(encode(texts[start : start + _CHUNK])))
                with atomic_path(file) as temporary, temporary.open("wb") as handle:
                    np.save(handle, parts[-1])
            advance(len(parts[-1]))
    return np.concatenate(parts)


def _topics(
    pool: Pool, vectors: Vectors, settings: CurateSettings
) -> tuple[NDArray[np.int64], list[str]]:
    """Clusters, and the topic of each demonstration: given, or its cluster's name.

    Raises:
        ConfigError: topics should be given and some demonstrations have none.
    """
    count = topic_count(len(pool), settings.topics)
    labels = cluster(vectors, count, settings.seed)
    missing = pool.topics.count("")
    if settings.topic_by == "given" and missing:
        fix = "set topic_by to clusters, or give every demonstration a topic"
        raise ConfigError(f"{missing:,} of {len(pool):,} demonstrations have no topic", fix=fix)
    if settings.topic_by == "given" or (settings.topic_by == "auto" and not missing):
        return labels, list(pool.topics)
    names = name_clusters(pool.prompts, labels, count, settings.seed)
    return labels, [names[k] for k in labels.tolist()]


def _choose(
    measures: Measures, screened: Screened, topics: Sequence[str], settings: CurateSettings
) -> tuple[list[int], Gate, list[Cell]]:
    """The chosen rows in order, the gate that let them in, and the cell of every row.

    Raises:
        ConfigError: quotas that cannot be met.
    """
    usable = screened.usable
    cells = list(zip(measures.pool.sources, topics, strict=True))
    open_cells = [cells[row] for row in usable.tolist()]
    quotas = make_quotas(
        settings.quotas,
        open_cells,
        max_per_source=settings.max_per_source,
        max_per_topic=settings.max_per_topic,
    )
    gate = Gate(quotas, open_cells, settings.n)
    candidates = Candidates(
        measures.vectors[usable], screened.quality[usable], open_cells, measures.clusters[usable]
    )
    task = Task(settings.n, settings.quality_weight, settings.clients, settings.seed)
    rows = choose(settings.strategy, candidates, gate, task)
    assert len(rows) == settings.n
    return usable[rows].tolist(), gate, cells


def _explain(
    file: Path,
    measures: Measures,
    screened: Screened,
    chosen: Sequence[int],
    cells: Sequence[Cell],
    gate: Gate,
) -> None:
    """One line per demonstration: kept or not, why, its numbers, its nearest kept neighbour."""
    pool = measures.pool
    ranks = {row: rank for rank, row in enumerate(chosen, start=1)}
    place, cosine = nearest(measures.vectors, chosen, apart=len(chosen) > 1)
    with atomic_writer(file) as handle:
        for row, name in enumerate(pool.ids):
            reason = screened.reasons[row]
            if not reason:
                reason = FULL if gate.is_closed(cells[row]) else NOT_CHOSEN
            quality = screened.quality[row]
            cellular: dict[str, Json] = {
                "id": name,
                "kept": row in ranks,
                "reason": CHOSEN if row in ranks else reason,
                "detail": screened.details.get(row, ""),
                "rank": ranks.get(row),
                "quality": round(float(quality), 4) if np.isfinite(quality) else None,
                "scores": {
                    column: values[row] if np.isfinite(values[row]) else None
                    for column, values in pool.quality.items()
                },
                "faults": dict(pool.faults[row]),
                "source": cells[row][0],
                "topic": cells[row][1],
                "prompt_chars": pool.prompt_chars[row],
                "answer_chars": pool.answer_chars[row],
                "nearest_kept": pool.ids[chosen[int(place[row])]],
                "similarity": round(float(cosine[row]), 4),
            }
            handle.write(json.dumps(cellular, ensure_ascii=False, allow_nan=False) + "\n")


def _shares(
    names: Sequence[str], usable: Sequence[int], chosen: Sequence[int]
) -> dict[str, tuple[int, int, int]]:
    """Name → how many were read, usable and chosen; the most chosen first."""
    read = Counter(names)
    could = Counter(names[row] for row in usable)
    kept = Counter(names[row] for row in chosen)
    order = sorted(read, key=lambda name: (-kept[name], -read[name], name))
    return {name: (read[name], could[name], kept[name]) for name in order}


def _summary(found: Curated, settings: CurateSettings) -> dict[str, Json]:
    def rows(shares: dict[str, tuple[int, int, int]]) -> list[Json]:
        return [
            {"name": name, "read": r, "usable": u, "chosen": c}
            for name, (r, u, c) in shares.items()
        ]

    return {
        "settings": settings.model_dump(mode="json"),
        "read": found.read,
        "lost": found.lost,
        "refused": found.refused,
        "usable": found.usable,
        "chosen": settings.n,
        "comparison": {name: p.to_json() for name, p in found.profiles.items()},
        "topics": rows(found.topics),
        "sources": rows(found.sources),
        "receipt": found.receipt.to_json(),
    }
