"""Files and folders to documents: text, Markdown, HTML, PDF, JSON lines, JSON knowledge bases.

A file that cannot be used is counted with its reason and the others go on; only when nothing at
all is left is that an error. Knows nothing of chunks, search or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litee.collect.documents_knowledge import knowledge_documents, parse_knowledge
from litee.collect.documents_pdf import pdf_pages
from litee.collect.gathering import Tally
from litee.collect.markup import to_markdown
from litee.collect.zst import json_lines, open_stream
from litee.errors import InputError
from litee.records import Document, Dropped
from litee.rundir import sha256_file

BLANK = "blank document"
BROKEN_PDF = "broken PDF"
NOT_TEXT = "not UTF-8 text"
NO_TEXT = "JSON record without a text"
SAME_ID = "id that occurred before"
UNKNOWN = "unknown kind of file"

_PACKED = (".gz", ".zst", ".bz2", ".xz")
_KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".json": "knowledge",
    ".jsonl": "lines",
    ".ndjson": "lines",
}


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """Documents as they came out of files, with what was left out and why.

    Attributes:
        documents: the usable ones, in file order; their ids differ.
        dropped: files, pages and records that were not used, by reason.
        inputs: file → sha256 of its bytes.
    """

    documents: tuple[Document, ...]
    dropped: Dropped = field(default_factory=Dropped)
    inputs: Mapping[str, str] = field(default_factory=dict)


def document_kind(path: Path) -> str | None:
    """`text`, `html`, `pdf`, `knowledge` or `lines`, from the name; None for another ending.

    >>> document_kind(Path("a/guide.MD")), document_kind(Path("faq.json.gz"))
    ('text', 'knowledge')
    """
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return _KINDS.get(Path(name).suffix)


def read_documents(paths: Sequence[Path], *, questions: bool = True) -> DocumentSet:
    """All documents of files and folders (searched to any depth, in the order of names).

    Args:
        paths: files or folders.
        questions: whether an entry of a knowledge base keeps its question before its answer.

    Raises:
        InputError: a path is missing, a file that was named has an unknown ending, a knowledge
            base is broken, or no document is left.
    """
    tally = Tally()
    inputs: dict[str, str] = {}
    found: dict[str, Document] = {}
    for path in paths:
        for file, name in _files(path, tally):
            inputs[str(file)] = sha256_file(file)
            for document in _READERS[document_kind(file) or ""](file, name, questions, tally):
                if found.setdefault(document.id, document) is not document:
                    tally.add(SAME_ID, document.source)
    if not found:
        reasons = ", ".join(f"{n:,} × {reason}" for reason, n in tally.counts.items())
        raise InputError(
            f"no document was found ({reasons or 'no files'})",
            place=", ".join(map(str, paths)),
            fix=f"give files that end in {', '.join(_KINDS)}, or folders of them",
        )
    return DocumentSet(tuple(found.values()), tally.frozen(), inputs)


def _files(path: Path, tally: Tally) -> Iterator[tuple[Path, str]]:
    """Files with the names that ids start with: relative to the folder that was given."""
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            if document_kind(file) is None:
                tally.add(UNKNOWN, str(file))
            else:
                yield file, file.relative_to(path).as_posix()
    elif not path.exists():
        raise InputError("no such file or folder", place=str(path), fix="check the path")
    elif document_kind(path) is None:
        fix = f"rename the file; known endings: {', '.join(_KINDS)}"
        raise InputError(UNKNOWN, place=str(path), fix=fix)
    else:
        yield path, path.name


def _text(path: Path, name: str, questions: bool, tally: Tally) -> Iterator[Document]:
    with open_stream(path) as handle:
        raw = handle.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        tally.add(NOT_TEXT, str(path))
        return
    title = ""
    if document_kind(path) == "html":
        text = to_markdown(text)
    else:
        first = text.lstrip().partition("\n")[0]
        title = first.lstrip("# ").strip() if first.startswith("#") else ""
    yield from _checked([(name, text, title)], str(path), tally)


def _pdf(path: Path, name: str, questions: bool, tally: Tally) -> Iterator[Document]:
    try:
        pages = pdf_pages(path)
    except InputError as error:
        tally.add(BROKEN_PDF, f"{path}: {error.problem}")
        return
    for number, text in enumerate(pages, start=1):
        place = f"{path}, page {number}"
        yield from _checked([(f"{name}/page-{number}", text, "")], place, tally)


def _lines(path: Path, name: str, questions: bool, tally: Tally) -> Iterator[Document]:
    for number, row in json_lines(path, tally):
        place = f"{path}, row {number}"
        text = row.get("text")
        if not isinstance(text, str):
            tally.add(NO_TEXT, place)
            continue
        own = row.get("id")
        title = row.get("title")
        record = (
            str(own) if own is not None else f"{name}/{number}",
            text,
            title if isinstance(title, str) else "",
        )
        yield from _checked([record], place, tally)


def _knowledge(path: Path, name: str, questions: bool, tally: Tally) -> Iterator[Document]:
    with open_stream(path) as handle:
        value = parse_knowledge(handle.read(), path)
    records = knowledge_documents(value, questions=questions)
    yield from _checked(records, str(path), tally)


def _checked(
    records: Iterable[tuple[str, str, str]], source: str, tally: Tally
) -> Iterator[Document]:
    for own, text, title in records:
        if text.strip():
            yield Document(own, text, source, title)
        else:
            tally.add(BLANK, f"{source}, {own}")


_READERS: Mapping[str, Callable[[Path, str, bool, Tally], Iterator[Document]]] = {
    "text": _text,
    "html": _text,
    "pdf": _pdf,
    "lines": _lines,
    "knowledge": _knowledge,
}
