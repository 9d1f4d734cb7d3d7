"""Packed files to bytes, lines and JSON records, as a stream: plain, gzip, bzip2, xz, zstandard.

Memory does not grow with the file. A damaged or truncated file ends in a `DamagedError` that says
how much came out before; single broken lines are counted and left out. Knows nothing of what the
records mean.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from litee.collect.gathering import Tally
from litee.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BROKEN_JSON = "broken JSON"
NO_OBJECT = "JSON that is no object"
NOT_UTF8 = "not UTF-8 text"
LONG_LINE = "line over 64 MiB"

#: Longer lines are no record of any known dump; they are skipped, not held in memory.
_LONGEST = 64 << 20
#: Largest window of zstandard's long mode, which the Reddit dumps use (`zstd --long=31`).
_WINDOW_LOG = 31

_FIX = "download or pack the file again, or keep what can be read with --salvage"


class DamagedError(InputError):
    """A packed file breaks off or is corrupt; what came out before the damage is good."""


def _open_zstd(raw: IO[bytes]) -> IO[bytes]:
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    return cast(IO[bytes], zstd.ZstdFile(raw, options=options))


_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], IO[bytes]]], ...] = (
    (b"\x1f\x8b", lambda raw: cast(IO[bytes], gzip.GzipFile(fileobj=raw))),
    (b"\x28\xb5\x2f\xfd", _open_zstd),
    (b"BZh", lambda raw: cast(IO[bytes], bz2.BZ2File(raw))),
    (b"\xfd7zXZ\x00", lambda raw: cast(IO[bytes], lzma.LZMAFile(raw))),  # noqa: SIM115
)


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked by what its first bytes say, whatever its name.

    Raises:
        InputError: the file is missing or cannot be read.
        DamagedError: the packed data is corrupt or breaks off (raised while reading).
    """
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "no such file"
        raise InputError(problem, place=str(path), fix="check the path")
    handle: IO[bytes] | None = None
    try:
        with path.open("rb") as raw:
            head = raw.read(8)
            raw.seek(0)
            opener = next((o for magic, o in _OPENERS if head.startswith(magic)), None)
            handle = raw if opener is None else opener(raw)
            yield handle
    except (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, gzip.BadGzipFile) as error:
        raise _damaged(path, handle, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of damaged data
            raise _damaged(path, handle, error) from error
        fix = "check that the file exists and may be read"
        raise InputError(f"cannot read: {error.strerror}", place=str(path), fix=fix) from error


def _damaged(path: Path, handle: IO[bytes] | None, error: Exception) -> DamagedError:
    read = 0
    if handle is not None and not handle.closed:
        read = handle.tell()
    reason = str(error).rstrip(".")
    problem = f"broken packed data after {read:,} unpacked bytes: {reason}"
    return DamagedError(problem, place=str(path), fix=_FIX)


def byte_lines(path: Path, dropped: Tally) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers from 1, without their endings.

    Lines over 64 MiB are counted and skipped.

    Raises:
        InputError: as `open_stream`.
        DamagedError: as `open_stream`; the lines that were whole have been given before.
    """
    with open_stream(path) as handle:
        number = 0
        while line := handle.readline(_LONGEST):
            number += 1
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                dropped.add(LONG_LINE, f"{path}, row {number}")
                while (rest := handle.readline(_LONGEST)) and not rest.endswith(b"\n"):
                    pass
                continue
            yield number, line.rstrip(b"\r\n")


def json_lines(path: Path, dropped: Tally) -> Iterator[tuple[int, dict[str, object]]]:
    """The JSON objects of a file of JSON lines, with their line numbers.

    Blank lines are skipped; broken lines are counted by reason.

    Raises:
        InputError: as `open_stream`, and for UTF-16 text.
        DamagedError: as `open_stream`; the records before the damage have been given.
    """
    for number, line in byte_lines(path, dropped):
        if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
            fix = (
                f"save the file as UTF-8: iconv -f UTF-16 -t UTF-8 {path.name} > fixed-{path.name}"
            )
            raise InputError("UTF-16 text, not UTF-8", place=str(path), fix=fix)
        if not line.strip():
            continue
        place = f"{path}, row {number}"
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            dropped.add(NOT_UTF8, place)
        except (ValueError, RecursionError):
            dropped.add(BROKEN_JSON, place)
        else:
            if isinstance(value, dict):
                yield number, value
            else:
                dropped.add(NO_OBJECT, place)
