"""One file out of a .7z archive, into a temporary folder.

A 7z archive keeps its table of contents at its end, so a truncated one gives nothing at all.
Knows nothing of what the file holds.
"""

from __future__ import annotations

import importlib
import lzma
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litee.errors import InputError, ResourceError
from litee.rundir import scratch_dir

_MAGIC = b"7z\xbc\xaf\x27\x1c"


def is_seven_zip(path: Path) -> bool:
    """Whether the file's first bytes are those of a 7z archive."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(_MAGIC)) == _MAGIC


@contextmanager
def extracted(path: Path, name: str) -> Iterator[Path]:
    """A file of the archive, unpacked on disk until the block ends.

    Raises:
        InputError: the archive is damaged, truncated or protected, or holds no such file.
        ResourceError: no room for the unpacked file.
        ModuleNotFoundError: py7zr is not installed (extra `dumps`).
    """
    library = importlib.import_module("py7zr")
    folder = scratch_dir("litee-7z-")
    try:
        yield _unpack(library, path, name, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(library: object, path: Path, name: str, folder: Path) -> Path:
    seven_zip = getattr(library, "SevenZipFile")  # noqa: B009
    known = getattr(getattr(library, "exceptions"), "ArchiveError")  # noqa: B009
    try:
        with seven_zip(path) as archive:
            files = {str(item.filename): int(item.uncompressed) for item in archive.list()}
            if name not in files:
                held = ", ".join(sorted(files)[:8]) or "nothing"
                fix = f"choose an archive that holds {name}"
                raise InputError(f"holds no {name} (found: {held})", place=str(path), fix=fix)
            free = shutil.disk_usage(folder).free
            if files[name] > free:
                problem = f"{name} needs {files[name] / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
                fix = "free some space, or set TMPDIR to a folder with more"
                raise ResourceError(problem, place=str(folder), fix=fix)
            archive.extract(folder, targets=[name])
    except InputError:
        raise
    except (
        known,
        lzma.LZMAError,
        EOFError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        AssertionError,
        OverflowError,
        MemoryError,
        zlib.error,
        NotImplementedError,
    ) as error:
        # py7zr answers damaged headers with whatever its parser stumbles over
        size = path.stat().st_size
        problem = f"broken 7z archive of {size:,} bytes, nothing could be read: {error!r}"
        fix = "download it again; a truncated 7z archive has lost its table of contents"
        raise InputError(problem, place=str(path), fix=fix) from error
    return folder / name
