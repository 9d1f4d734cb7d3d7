"""Files to rows: CSV, TSV, JSON lines, JSON, parquet, the voting page's database, one by one.

Broken files end in an `InputError` with the file, the row and the fix. Knows nothing of votes:
which columns mean what is decided elsewhere.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from litee.collect.cells import Row
from litee.collect.vote_page import database_rows
from litee.errors import InputError

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".db": "database",
    ".sqlite": "database",
}
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Table:
    """An opened file: its columns (of the first record for JSON) and its records.

    Attributes:
        columns: names in file order, of at least one record.
        rows: the records, to be read once.
    """

    columns: tuple[str, ...]
    rows: Iterator[Row]


def file_kind(path: Path) -> str:
    """`csv`, `tsv`, `jsonl`, `json`, `parquet` or `database`, from the name, without a final `.gz`.

    >>> file_kind(Path("votes.csv.gz")), file_kind(Path("train-00000.parquet"))
    ('csv', 'parquet')

    Raises:
        InputError: another ending.
    """
    name = path.name.lower().removesuffix(".gz")
    kind = _SUFFIXES.get(Path(name).suffix)
    if kind is None:
        fix = f"rename the file; known endings: {', '.join(_SUFFIXES)}, each also with .gz"
        raise InputError("the file's ending does not tell what it holds", place=str(path), fix=fix)
    return kind


def open_table(path: Path) -> Table:
    """Open a file and read as far as its columns.

    Raises:
        InputError: the file is missing, empty, broken or of an unknown kind; broken records
            further on raise while the rows are read.
    """
    kind = file_kind(path)
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "no such file"
        raise InputError(problem, place=str(path), fix="check the path")
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        "csv": lambda p: _delimited(p, ","),
        "tsv": lambda p: _delimited(p, "\t"),
        "jsonl": _json_lines,
        "json": _json_array,
        "parquet": _parquet,
        "database": database_rows,
    }
    rows = readers[kind](path)
    read: list[Row] = []
    for row in rows:
        read.append(row)
        if row.cells:
            return Table(tuple(row.cells), chain(read, rows))
    if kind == "database":
        fix = f"run `litee vote --db {path}` and vote on its page"
        raise InputError("nobody has voted yet", place=str(path), fix=fix)
    raise InputError("the file holds no rows", place=str(path), fix="check the file")


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked when it is gzipped, whatever its name."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        fix = "download or pack the file again"
        raise InputError(f"broken gzip data: {error}", place=str(path), fix=fix) from error
    except OSError as error:
        fix = "check that the file exists and may be read"
        raise InputError(f"cannot read: {error.strerror}", place=str(path), fix=fix) from error


def _lines(path: Path, handle: IO[bytes]) -> Iterator[str]:
    """The file's lines with their endings, decoded as UTF-8; a byte-order mark is skipped."""
    offset = 0
    for number, line in enumerate(handle, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, line, number, offset + error.start, error) from error
        offset += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text


def _not_utf8(
    path: Path, line: bytes, number: int, offset: int, error: UnicodeDecodeError
) -> InputError:
    utf16 = number == 1 and line[:2] in {b"\xff\xfe", b"\xfe\xff"}
    kind = "UTF-16, " if utf16 else ""
    byte = line[error.start]
    name = "UTF-16" if utf16 else "CP1252"
    command = f"iconv -f {name} -t UTF-8 {path.name} > fixed-{path.name}"
    return InputError(
        f"not UTF-8 text: {kind}byte 0x{byte:02x} at offset {offset} (line {number})",
        place=str(path),
        fix=f"save the file as UTF-8, e.g. {command}",
    )


def _delimited(path: Path, delimiter: str) -> Iterator[Row]:
    """Records of a CSV or TSV file; every record must have as many cells as the header.

    A header of a single cell that holds semicolons or tabs says what separates the cells instead,
    as spreadsheets write where the comma is a decimal sign.
    """
    csv.field_size_limit(sys.maxsize)
    with _binary(path) as handle:
        lines = _lines(path, handle)
        first = next(lines, None)
        if first is None:
            return
        if delimiter not in first:
            delimiter = next((other for other in ";\t," if other in first), delimiter)
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            started = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise _broken_csv(path, number + 1, started, error) from error
            if cells is None:
                return
            number += 1
            if header is None:
                header = _checked_header(path, cells)
            elif not cells:
                yield Row(str(path), number, {})
            elif len(cells) != len(header):
                raise _ragged(path, number, started, (len(cells), len(header)))
            else:
                yield Row(str(path), number, dict(zip(header, cells, strict=True)))


def _checked_header(path: Path, cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        problem = f"the header names {', '.join(map(repr, twice))} more than once"
        raise InputError(problem, place=f"{path}, row 1", fix="give every column its own name")
    return header


def _broken_csv(path: Path, number: int, line: int, error: csv.Error) -> InputError:
    reason = str(error)
    fix = 'write a quote inside a quoted cell twice (""), and close every quoted cell'
    if reason == "unexpected end of data":
        reason = "a quote is opened and never closed"
    elif reason.startswith("new-line character seen"):
        reason = "lines end with a carriage return alone, as on old Macs"
        fix = f"write line feeds: tr '\\r' '\\n' < {path.name} > fixed-{path.name}"
    return InputError(
        f"broken CSV in the record that starts at line {line}: {reason}",
        place=f"{path}, row {number}",
        fix=fix,
    )


def _ragged(path: Path, number: int, line: int, cells: tuple[int, int]) -> InputError:
    fix = "quote cells that hold the delimiter or line breaks, and write empty cells too"
    return InputError(
        f"the record that starts at line {line} has {cells[0]} cells, the header has {cells[1]}",
        place=f"{path}, row {number}",
        fix=fix,
    )


def _json_lines(path: Path) -> Iterator[Row]:
    with _binary(path) as handle:
        yield from _json_records(path, _lines(path, handle))


def _json_records(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield Row(str(path), number, {})
            continue
        place = f"{path}, row {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            fix = "write one complete JSON object per line"
            raise InputError(f"broken JSON: {error}", place=place, fix=fix) from error
        yield _json_row(path, number, value)


def _json_row(path: Path, number: int, value: object) -> Row:
    if not isinstance(value, dict):
        problem = f"expected a JSON object, found {type(value).__name__}"
        place = f"{path}, row {number}"
        raise InputError(problem, place=place, fix='write rows as {"column": value, …}')
    return Row(str(path), number, value)


def _json_array(path: Path) -> Iterator[Row]:
    """A JSON array of objects; a `.json` file that holds JSON lines is read as such."""
    with _binary(path) as handle:
        lines = list(_lines(path, handle))
    text = "".join(lines)
    if not text.lstrip().startswith("["):
        yield from _json_records(path, iter(lines))
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        fix = "write one JSON array of objects, or JSON lines in a .jsonl file"
        raise InputError(f"broken JSON: {error}", place=str(path), fix=fix) from error
    for number, value in enumerate(values, start=1):
        yield _json_row(path, number, value)


def _parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, cells)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        fix = "write or download the file again"
        raise InputError(f"broken parquet data: {reason}", place=str(path), fix=fix) from error
