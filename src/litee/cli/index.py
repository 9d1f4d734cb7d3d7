"""`litee index`: documents to an index, questions to chunks, and how well that works.

Parses, calls and prints; knows nothing of how chunks are ranked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from litee.encode.retrieval import Encoder, Hit, Reranker, Retriever
    from litee.rundir import Json
    from litee.score.retrieval import Query, RetrievalReport

app = typer.Typer(no_args_is_help=True, help="Build, search and evaluate an index of documents.")

_METHODS = ("bm25", "embeddings", "hybrid")

Index = Annotated[Path, typer.Argument(help="Folder that litee index build wrote.")]
Rerank = Annotated[
    str, typer.Option("--reranker", help="Cross-encoder that puts the candidates in order.")
]


@app.command()
def build(
    documents: Annotated[list[Path], typer.Argument(help="Files or folders of documents.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the index.")],
    chunk_characters: Annotated[
        int | None, typer.Option(help="Most characters of a chunk.")
    ] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="Characters that chunks share.")] = None,
    encoder: Annotated[str, typer.Option(help="Sentence encoder.")] = "all-MiniLM-L6-v2",
    embeddings: Annotated[bool, typer.Option(help="Search by meaning too.")] = True,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Leave a knowledge base's questions out.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier build.")] = False,
) -> None:
    """Cut documents into chunks and index their words and meaning."""
    from litee.collect.documents import read_documents
    from litee.collect.documents_chunks import ChunkSettings, cut_documents
    from litee.config import load_settings
    from litee.encode.retrieval_index import build_index
    from litee.progress import console
    from litee.rundir import RunDir

    given = {"chunk_characters": chunk_characters, "chunk_overlap": chunk_overlap}
    settings = load_settings(ChunkSettings, None, given)
    found = read_documents(documents, questions=not answers_only)
    chunks = tuple(cut_documents(found.documents, settings))
    console.print(f"{len(found.documents):,} documents, {len(chunks):,} chunks", highlight=False)
    for reason, count in found.dropped.counts.items():
        places = "; ".join(found.dropped.examples[reason][:2])
        console.print(f"  dropped {count:,}: {reason} ({places})", highlight=False, soft_wrap=True)
    manifest: dict[str, Json] = {
        "kind": "index",
        "settings": settings.model_dump(),
        "encoder": encoder if embeddings else "",
        "answers_only": answers_only,
        "inputs": dict(found.inputs),
    }
    run = RunDir(out, manifest, resume=resume)
    loaded = _encoder(encoder) if embeddings else None
    build_index(chunks, run, encoder=loaded, encoder_name=encoder)
    typer.echo(f"index: {out}")


@app.command()
def search(
    index: Index,
    query: Annotated[str, typer.Argument(help="A question.")],
    *,
    method: Annotated[str | None, typer.Option(help="hybrid, bm25 or embeddings.")] = None,
    k: Annotated[int | None, typer.Option(help="How many chunks.")] = None,
    reranker: Rerank = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show the chunks that fit a question best."""
    from litee.config import load_settings
    from litee.encode.retrieval import SearchSettings

    retriever = _open(index, method, reranker)
    usual = "hybrid" if retriever.vectors else "bm25"
    settings = load_settings(SearchSettings, None, {"method": method or usual, "k": k})
    hits = retriever.search(query, settings)
    for hit in hits:
        if as_json:
            typer.echo(json.dumps(_plain(hit), ensure_ascii=False))
        else:
            ranks = f"words {hit.bm25_rank or '–'}, meaning {hit.embedding_rank or '–'}"
            head = f"{hit.rank}. {hit.chunk.id}  {hit.score:.4f}  ({ranks})"
            text = " ".join(hit.chunk.titled.split())
            typer.echo(f"{head}\n   {text}\n   {hit.chunk.source}")
    if not hits:
        typer.echo("nothing found", err=True)


@app.command()
def evaluate(
    index: Index,
    queries: Annotated[
        Path,
        typer.Argument(help="JSON lines with query, gold (ids) and group; or DSTC labels."),
    ],
    *,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge base of DSTC labels.")] = None,
    logs: Annotated[Path | None, typer.Option(help="Dialogues of DSTC labels.")] = None,
    reranker: Rerank = "",
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
) -> None:
    """Measure recall, reciprocal rank and nDCG of every way to search, with intervals."""
    from rich.console import Console

    from litee.progress import progress
    from litee.rundir import write_json
    from litee.score.retrieval import evaluate_rankings

    asked = _queries(queries, knowledge, logs)
    retriever = _open(index, "hybrid", reranker)
    methods = [m for m in _METHODS if retriever.vectors or m == "bm25"]
    unknown = [q for q in asked if not any(retriever.knows(own) for own in q.gold)]
    if unknown:
        problem = f"{len(unknown):,} of {len(asked):,} queries have no gold document in the index"
        fix = f"gold ids are chunk or document ids, e.g. {retriever.chunks[0].document}"
        raise InputError(problem, place=str(queries), fix=fix)
    rankings: dict[str, list[list[str]]] = {m: [] for m in methods}
    with progress("searching", len(asked) * len(methods), "queries") as advance:
        for method in methods:
            for query in asked:
                rankings[method].append(_deep(retriever, query, method))
                advance(1)
    report = evaluate_rankings(asked, rankings, seed=seed)
    Console().print(_table(report))
    if out is not None:
        write_json(out, {m: {n: s.value for n, s in v.items()} for m, v in report.metrics.items()})


def _deep(retriever: Retriever, query: Query, method: str) -> list[str]:
    """At least `LARGEST` distinct ids, the best first, however many chunks a document has."""
    from litee.encode.retrieval import SearchSettings
    from litee.score.retrieval import LARGEST

    k = 2 * LARGEST
    while True:
        given = {"method": method, "k": k, "candidates": max(100, k)}
        hits = retriever.search(query.text, SearchSettings.model_validate(given))
        found = _ids(hits, query)
        if len(found) >= LARGEST or len(hits) < k:
            return found
        k *= 4


def _ids(hits: list[Hit], query: Query) -> list[str]:
    """Chunk ids, or the ids of their documents where those are the gold ones; each id once."""
    found = [h.chunk.id if h.chunk.id in query.gold else h.chunk.document for h in hits]
    return list(dict.fromkeys(found))


def _queries(file: Path, knowledge: Path | None, logs: Path | None) -> list[Query]:
    from litee.collect.documents_turns import read_grounded
    from litee.collect.rows import open_table
    from litee.score.retrieval import Query

    if knowledge is not None:
        found = read_grounded(file, knowledge, logs)
        return [
            Query(turn.messages[-1].text, frozenset(turn.documents), turn.dialogue)
            for turn in found.turns
        ]
    if logs is not None:
        raise ConfigError("--logs needs --knowledge", fix="give the knowledge base of the labels")
    queries = []
    for row in open_table(file).rows:
        text, gold = row.cells.get("query"), row.cells.get("gold")
        gold = [gold] if isinstance(gold, str) else gold
        if not isinstance(text, str) or not isinstance(gold, list) or not gold:
            place = f"{row.file}, row {row.number}"
            fix = 'write {"query": "…", "gold": ["document id"]}'
            raise InputError("no query with gold ids", place=place, fix=fix)
        group = str(row.cells.get("group") or "")
        queries.append(Query(text, frozenset(map(str, gold)), group))
    return queries


def _open(index: Path, method: str | None, reranker: str) -> Retriever:
    from litee.encode.retrieval_index import open_index, read_encoder_name

    name = read_encoder_name(index)
    encoder = _encoder(name) if name and method != "bm25" else None
    return open_index(index, encoder=encoder, reranker=_reranker(reranker))


def _encoder(name: str) -> Encoder:
    from litee.score.neural import SentenceEncoder

    return SentenceEncoder(name)


def _reranker(name: str) -> Reranker | None:
    if not name:
        return None
    from litee.score.cross_encoder import CrossEncoder

    return CrossEncoder(name)


def _plain(hit: Hit) -> dict[str, object]:
    chunk = hit.chunk
    return {
        "rank": hit.rank,
        "id": chunk.id,
        "score": hit.score,
        "bm25_rank": hit.bm25_rank,
        "embedding_rank": hit.embedding_rank,
        "title": chunk.title,
        "text": chunk.text,
        "source": chunk.source,
        "start": chunk.start,
        "end": chunk.end,
    }


def _table(report: RetrievalReport) -> Table:
    from rich.table import Table

    table = Table(title=f"{report.queries:,} queries, {report.groups:,} groups; 95 % intervals")
    table.add_column("metric")
    for method in report.metrics:
        table.add_column(method, justify="right")
    for name in next(iter(report.metrics.values())):
        cells = []
        for scores in report.metrics.values():
            score = scores[name]
            ends = "" if score.low is None else f" ({score.low:.3f}–{score.high:.3f})"
            cells.append(f"{score.value:.3f}{ends}")
        table.add_row(name, *cells)
    return table
