"""`litee raft`: data for retrieval-augmented fine-tuning (RAFT, arXiv 2403.10131).

Parses, calls and prints; knows nothing of how rows are made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.config import load_settings
from litee.encode.raft_settings import RaftSettings
from litee.errors import ConfigError, InputError

if TYPE_CHECKING:
    from litee.collect.gathering import Tally
    from litee.encode.raft_build import RaftReport
    from litee.encode.raft_items import RaftItem
    from litee.encode.raft_writing import Writer
    from litee.encode.retrieval import Retriever
    from litee.records import Chunk, Dropped
    from litee.rundir import Json

app = typer.Typer(
    no_args_is_help=True,
    help="Build and check data for retrieval-augmented fine-tuning (RAFT).",
)

_WRITER = "Who writes questions and answers"


def _help(name: str) -> str:
    field = RaftSettings.model_fields[name]
    return f"{field.description} (default: {field.default})"


LabelsOption = Annotated[
    Path | None,
    typer.Option(help="Turns that people answered (DSTC9, DSTC11).", rich_help_panel=_WRITER),
]
LogsOption = Annotated[
    Path | None, typer.Option(help="Dialogues of the labels.", rich_help_panel=_WRITER)
]
BaseUrlOption = Annotated[
    str, typer.Option(help="OpenAI-compatible endpoint.", rich_help_panel=_WRITER)
]


@app.command()
def build(
    documents: Annotated[list[Path], typer.Argument(help="Files or folders of documents.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the rows.")],
    labels: LabelsOption = None,
    logs: LogsOption = None,
    base_url: BaseUrlOption = "",
    model: Annotated[
        str, typer.Option(help="Model of the endpoint, or one here.", rich_help_panel=_WRITER)
    ] = "",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Search the retrieved test file by meaning too.")
    ] = False,
    chunk_characters: Annotated[int, typer.Option(help="Most characters of a chunk.")] = 1000,
    oracle_share: Annotated[float | None, typer.Option(help=_help("oracle_share"))] = None,
    distractors: Annotated[int | None, typer.Option(help=_help("distractors"))] = None,
    distractor_kind: Annotated[str | None, typer.Option(help=_help("distractor_kind"))] = None,
    without_oracle: Annotated[str | None, typer.Option(help=_help("without_oracle"))] = None,
    questions_per_chunk: Annotated[
        int | None, typer.Option(help=_help("questions_per_chunk"))
    ] = None,
    seed: Annotated[int | None, typer.Option(help=_help("seed"))] = None,
) -> None:
    """Make training and test rows: oracle and distractors, a question, an answer with quotes.

    With --labels people's answers are used as they are; with --model a model writes questions and
    answers; with neither, documents that ask and answer (FAQs) give both.
    """
    from litee.collect.gathering import Tally
    from litee.encode.raft_build import build_raft

    given = {
        "oracle_share": oracle_share,
        "distractors": distractors,
        "distractor_kind": distractor_kind,
        "without_oracle": without_oracle,
        "questions_per_chunk": questions_per_chunk,
        "seed": seed,
    }
    settings = load_settings(RaftSettings, config, given)
    if labels is not None and (model or len(documents) != 1):
        fix = "give one knowledge base and no --model, or leave --labels out"
        raise ConfigError("--labels takes people's answers to one knowledge base", fix=fix)
    if logs is not None and labels is None:
        raise ConfigError("--logs needs --labels", fix="give the labels of the dialogues")
    if base_url and not model:
        raise ConfigError("--base-url needs --model", fix="name the endpoint's model")
    _run(out, settings, [*documents, labels, logs], f"{base_url} {model}", resume=resume)
    dropped = Tally()
    if labels is not None:
        items, chunks = _people(documents[0], labels, logs, settings, dropped)
    else:
        chunks = _chunks(documents, chunk_characters, dropped)
        writer = _writer(base_url, model) if model else None
        items = _written(chunks, writer, settings, dropped, out / "written.jsonl")
    search = _search(chunks, out / "index") if embeddings else None
    report = build_raft(items, chunks, settings, out, search=search)
    _say(report, dropped.frozen(), out)


@app.command()
def audit(
    rows: Annotated[list[Path], typer.Argument(help="RAFT rows, JSON lines.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Also write them as messages to tune on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count oracles, quotes and final answers of RAFT rows, whoever made them."""
    from rich.console import Console
    from rich.table import Table

    from litee.collect.demonstrations import write_demonstrations
    from litee.encode.raft_audit import audit_rows, read_audit_rows

    read = {file: read_audit_rows(file) for file in rows}
    found = {str(file): audit_rows(*pair).to_json() for file, pair in read.items()}
    if out is not None:
        write_demonstrations(
            out, [row.named(file.name) for file, (own, _) in read.items() for row in own]
        )
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table(title="RAFT rows")
    table.add_column("")
    for file in rows:
        table.add_column(file.name, justify="right")
    for name in next(iter(found.values())):
        cells = [f"{counts[name]}" for counts in found.values()]
        table.add_row(name.replace("_", " "), *cells)
    Console().print(table)


@app.command()
def check(
    train: Annotated[list[Path], typer.Argument(help="Rows to tune on, JSON lines.")],
    *,
    test: Annotated[Path, typer.Option(help="Test rows that litee raft build wrote.")],
) -> None:
    """Refuse training rows that hold a sentence which answers a test question (exit code 3)."""
    from litee.collect.rows import open_table
    from litee.encode.raft_split import check_leaks

    gold: set[str] = set()
    for row in open_table(test).rows:
        said = row.cells.get("gold")
        if not isinstance(said, list):
            place = f"{row.file}, row {row.number}"
            raise InputError("no gold sentences", place=place, fix="give a test file of raft build")
        gold |= {str(sentence) for sentence in said}
    count = 0
    for file in train:
        texts = {
            str(row.number): json.dumps(row.cells.get("messages"), ensure_ascii=False)
            for row in open_table(file).rows
        }
        count += len(texts)
        check_leaks(texts, gold, str(file))
    typer.echo(f"{count:,} rows hold none of {len(gold):,} gold sentences")


@app.command()
def answers(
    written: Annotated[Path, typer.Argument(help="Answers that litee generate wrote.")],
    *,
    test: Annotated[Path, typer.Option(help="The test rows that were answered.")],
    out: Annotated[Path, typer.Option(help="Answers to score, JSON lines.")],
) -> None:
    """Take the final answer out of generated text, and put question and reference beside it."""
    from litee.collect.rows import open_table
    from litee.encode.raft_format import final_answer, has_final_answer
    from litee.rundir import atomic_writer

    tests = {str(row.cells.get("id")): row.cells for row in open_table(test).rows}
    count = marked = 0
    with atomic_writer(out) as handle:
        for row in open_table(written).rows:
            cells = dict(row.cells)
            own, text = str(cells.get("id")), _last(cells.get("answer"))
            if own not in tests or text is None:
                place, fix = f"{row.file}, row {row.number}", "give answers to the rows of --test"
                raise InputError("no answer to a test row", place=place, fix=fix)
            count += 1
            marked += has_final_answer(text)
            test_row = tests[own]
            record = {
                "id": own,
                "system": cells.get("system") or "",
                "prompt": test_row["question"],
                "answer": final_answer(text),
                "reference": test_row["reference"],
                "contexts": test_row["contexts"],
                "written": text,
            }
            handle.write(json.dumps(record, ensure_ascii=False) + "\n")
    typer.echo(f"{count:,} answers, {marked:,} with an answer mark: {out}")


def _last(response: object) -> str | None:
    if isinstance(response, list) and response:
        response = response[-1]
    return response if isinstance(response, str) else None


def _run(
    out: Path, settings: RaftSettings, inputs: list[Path | None], writer: str, *, resume: bool
) -> None:
    from litee.rundir import RunDir, sha256_file

    files = [
        file
        for path in inputs
        if path is not None
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    manifest: dict[str, Json] = {
        "kind": "raft",
        "settings": settings.model_dump(mode="json"),
        "writer": writer.strip(),
        "inputs": {str(file): sha256_file(file) for file in files},
    }
    RunDir(out, manifest, resume=resume)


def _people(
    knowledge: Path, labels: Path, logs: Path | None, settings: RaftSettings, dropped: Tally
) -> tuple[list[RaftItem], list[Chunk]]:
    from litee.collect.documents_turns import read_grounded
    from litee.encode.raft_items import human_items, knowledge_chunks

    found = read_grounded(labels, knowledge, logs)
    _count(found.dropped, dropped)
    chunks = list(knowledge_chunks(found.entries, str(knowledge)))
    by_id = {chunk.id: chunk for chunk in chunks}
    items = human_items(found.turns, by_id, history=settings.history, most=settings.most_oracles)
    return list(items), chunks


def _chunks(documents: list[Path], characters: int, dropped: Tally) -> list[Chunk]:
    from litee.collect.documents import read_documents
    from litee.collect.documents_chunks import ChunkSettings, cut_documents

    settings = load_settings(ChunkSettings, None, {"chunk_characters": characters})
    found = read_documents(documents)
    _count(found.dropped, dropped)
    return list(cut_documents(found.documents, settings))


def _written(
    chunks: list[Chunk], writer: Writer | None, settings: RaftSettings, dropped: Tally, file: Path
) -> list[RaftItem]:
    from litee.encode.raft_items import extracted_items
    from litee.encode.raft_writing import CachedWriter, written_items
    from litee.progress import progress

    if writer is None:
        return list(extracted_items(chunks))
    count = settings.questions_per_chunk
    with progress("writing", len(chunks) * (count + 1), "prompts") as advance:
        cached = CachedWriter(writer, file)
        return written_items(chunks, cached, count, dropped=dropped, advance=advance)


def _writer(base_url: str, model: str) -> Writer:
    if not base_url:
        from litee.predict.generation_settings import GenerateSettings
        from litee.predict.raft_writer import LocalWriter

        return LocalWriter(GenerateSettings(backbone=model, max_new_tokens=256))
    from litee.score.llm_judge_settings import LlmJudgeSettings
    from litee.score.raft_endpoint import EndpointWriter

    values = {"base_url": base_url, "model": model, "temperature": 0.7}
    return EndpointWriter(load_settings(LlmJudgeSettings, None, values))


def _search(chunks: list[Chunk], folder: Path) -> Retriever:
    from litee.encode.retrieval_index import build_index, open_index
    from litee.rundir import RunDir, sha256_json
    from litee.score.neural import DEFAULT_ENCODER, SentenceEncoder

    encoder = SentenceEncoder()
    if not (folder / "index.json").exists():
        digest = sha256_json([[chunk.id, chunk.titled] for chunk in chunks])
        own = RunDir(folder, {"kind": "index", "chunks": digest}, resume=folder.exists())
        build_index(chunks, own, encoder=encoder, encoder_name=DEFAULT_ENCODER)
    return open_index(folder, encoder=encoder)


def _count(found: Dropped, dropped: Tally) -> None:
    for reason, count in found.counts.items():
        dropped.counts[reason] = dropped.counts.get(reason, 0) + count
        dropped.examples[reason] = found.examples.get(reason, ())


def _say(report: RaftReport, before: Dropped, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{out}")
    table.add_column("file")
    table.add_column("rows", justify="right")
    for name, count in report.files.items():
        table.add_row(name, f"{count:,}")
    console = Console()
    console.print(table)
    train = report.files["train.jsonl"]
    share = report.oracle_shown / train
    console.print(
        f"{report.oracle_shown:,} of {train:,} training rows show the oracle ({share:.0%})"
    )
    console.print(f"{report.quotes:,} quotes, all verbatim in their documents")
    if report.retrieved_recall is not None:
        console.print(f"search finds {report.retrieved_recall:.1%} of the test rows' oracles")
    for counts in (before.counts, report.dropped.counts):
        for reason, number in counts.items():
            console.print(f"  dropped {number:,}: {reason}", highlight=False)
