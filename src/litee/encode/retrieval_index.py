"""An index on disk: chunks, BM25, embeddings, each with its hash; resumable while it is built.

`index.json` is written last, so a folder without it is an unfinished index. Knows nothing of how
documents are read or models are loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from litee.encode.retrieval import Encoder, Reranker, Retriever, Vectors
from litee.encode.retrieval_bm25 import Bm25
from litee.errors import InputError
from litee.progress import progress
from litee.records import Chunk
from litee.rundir import RunDir, atomic_path, atomic_writer, sha256_file, write_json

FORMAT: Literal[1] = 1
#: Chunks per file of vectors; a killed build repeats at most so many.
_PART = 1024
_FIX = "build the index again with litee index build"


class _IndexFile(BaseModel):
    """`index.json`: how many chunks, how to load the encoder, and every file's sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    chunks: int
    encoder: str
    files: dict[str, str]


def build_index(
    chunks: Sequence[Chunk],
    run: RunDir,
    *,
    encoder: Encoder | None,
    encoder_name: str = "",
) -> None:
    """Write an index of chunks into a run's folder, going on where an earlier build stopped.

    Args:
        chunks: at least one, with different ids.
        run: the folder; its manifest must tell where the chunks come from.
        encoder: None builds BM25 only.
        encoder_name: how to load the encoder again.

    Raises:
        InputError: there is no chunk, no word, or an id occurs twice.
    """
    _check(chunks)
    folder = run.path
    run.run("chunks", lambda: _write_chunks(chunks, folder / "chunks.jsonl"))
    run.run("bm25", lambda: _write_bm25(chunks, folder / "bm25"))
    if encoder is not None:
        run.run("vectors", lambda: _write_vectors(chunks, folder / "vectors", encoder))
    files = [folder / "chunks.jsonl", *sorted((folder / "bm25").iterdir())]
    files += sorted((folder / "vectors").glob("*.npy")) if encoder is not None else []
    found = _IndexFile(
        format=FORMAT,
        chunks=len(chunks),
        encoder=encoder_name if encoder is not None else "",
        files={file.relative_to(folder).as_posix(): sha256_file(file) for file in files},
    )
    write_json(folder / "index.json", found.model_dump())


def read_encoder_name(folder: Path) -> str:
    """How to load the encoder of an index, "" when it has no embeddings.

    Raises:
        InputError: there is no finished index.
    """
    return _read_index(folder).encoder


def open_index(
    folder: Path, *, encoder: Encoder | None = None, reranker: Reranker | None = None
) -> Retriever:
    """Open a finished index; without `encoder` it searches by words only.

    Raises:
        InputError: the index is unfinished, of another format, or a file is damaged.
    """
    index = _read_index(folder)
    for name, digest in index.files.items():
        file = folder / name
        if not file.is_file() or sha256_file(file) != digest:
            problem = "is missing" if not file.is_file() else "was changed after it was written"
            raise InputError(problem, place=str(file), fix=_FIX)
    chunks = tuple(read_chunks(folder / "chunks.jsonl"))
    vectors: list[Vectors] = []
    if encoder is not None:
        names = sorted(name for name in index.files if name.startswith("vectors/"))
        vectors = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names]
    return Retriever(chunks, Bm25.load(folder / "bm25"), vectors, encoder, reranker)


def read_chunks(file: Path) -> Iterator[Chunk]:
    """The chunks of an index, in order."""
    with file.open(encoding="utf-8") as handle:
        for line in handle:
            yield Chunk(**json.loads(line))


def _check(chunks: Sequence[Chunk]) -> None:
    if not chunks:
        raise InputError("there is no chunk to index", fix="give documents with text")
    seen: set[str] = set()
    for chunk in chunks:
        if chunk.id in seen:
            fix = "give every document its own id"
            raise InputError(f"chunk id {chunk.id!r} occurs twice", place=chunk.source, fix=fix)
        seen.add(chunk.id)


def _read_index(folder: Path) -> _IndexFile:
    file = folder / "index.json"
    if not file.is_file():
        unfinished = (folder / "manifest.json").is_file()
        problem = "the index was not finished" if unfinished else "there is no index"
        fix = "run litee index build again with --resume" if unfinished else _FIX
        raise InputError(problem, place=str(folder), fix=fix)
    try:
        return _IndexFile.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        problem = f"broken index file: {name}: {first['msg']}"
        raise InputError(problem, place=str(file), fix=_FIX) from error


def _write_chunks(chunks: Sequence[Chunk], file: Path) -> int:
    with atomic_writer(file) as handle:
        for chunk in chunks:
            handle.write(json.dumps(asdict(chunk), ensure_ascii=False) + "\n")
    return 0


def _write_bm25(chunks: Sequence[Chunk], folder: Path) -> int:
    with progress("indexing words", len(chunks), "chunks") as advance:

        def texts() -> Iterator[str]:
            for chunk in chunks:
                yield chunk.titled
                advance(1)

        try:
            model = Bm25.build(texts())
        except ValueError as error:
            raise InputError(str(error), fix="give documents with words") from error
    temporary = folder.with_name(".bm25.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    model.save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return 0


def _write_vectors(chunks: Sequence[Chunk], folder: Path, encoder: Encoder) -> int:
    folder.mkdir(exist_ok=True)
    with progress("embedding", len(chunks), "chunks") as advance:
        for number, start in enumerate(range(0, len(chunks), _PART)):
            part = chunks[start : start + _PART]
            file = folder / f"{number:06d}.npy"
            if not file.exists():
                # the whole part at once: encoders batch texts of like length
                rows = encoder.encode([chunk.titled for chunk in part])
                with atomic_path(file) as temporary, temporary.open("wb") as handle:
                    np.save(handle, rows, allow_pickle=False)
            advance(len(part))
    return 0
