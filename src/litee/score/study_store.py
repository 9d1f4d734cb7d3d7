"""Where studies keep what several of them need: folders named after all that determines them.

What was made for one study is found by the next, and by the same study when it goes on. Two
studies that run at once do not fill one folder together: the second one waits. Knows nothing of
what is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from litee.errors import ConfigError, InputError
from litee.progress import console
from litee.rundir import Json, sha256_json, write_error, write_json

#: Beside the runs of studies: what they share.
SHARED = "demonstrations"

#: In a study's folder: which folders of the store it used.
USES = "uses.json"

#: In a folder of the store: who fills it. The operating system lets go of a dead process's lock.
LOCK = ".lock"

_FOLDER = re.compile(r"[a-z]+/[0-9a-f]{16}")


class Store:
    """Folders that are addressed by what is made in them.

    Args:
        root: the store's folder, shared by studies.
        study: folder of the study, which notes there what it has ever used.

    Raises:
        ConfigError: the study's folder is the store's.
        InputError: the study's notes are damaged.
    """

    def __init__(self, root: Path, study: Path) -> None:
        if root.resolve() == study.resolve():
            raise ConfigError(
                "this folder is for what studies share", place=str(study), fix="choose another one"
            )
        self.root, self._study = root, study
        self._used = _uses(study)

    def folder(self, kind: str, made_of: Mapping[str, Json]) -> Path:
        """The folder `kind/<digest>` of something, with `made_of.json`; it may be empty otherwise.

        Args:
            kind: of the thing, in small letters.
            made_of: everything that determines it. No path of a file: the file's digest.
        """
        name = f"{kind}/{sha256_json(made_of)[:16]}"
        if name not in self._used:
            self._used.append(name)
            write_json(self._study / USES, list(self._used))
        place = self.root / name
        if not (place / "made_of.json").is_file():
            write_json(place / "made_of.json", dict(made_of))
        return place


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Hold a folder of the store while something is made in it; waits for another who does.

    Look only inside the block whether the thing is there: the other one may just have made it.

    Raises:
        ResourceError: the folder cannot be written.
    """
    with _opened(folder / LOCK) as handle:
        if not _take(handle):
            _say(f"{folder}: {_holder(handle)} is at work there: waiting until it is done")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(f"process {os.getpid()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def throw_away(root: Path, study: Path) -> None:
    """Remove what a study used from the store, for a fresh start; nothing when it used none.

    Raises:
        ConfigError: another process is at work in one of the folders; nothing is removed then.
        InputError: the study's notes are damaged.
    """
    folders = [root / name for name in _uses(study) if _FOLDER.fullmatch(name)]
    for folder in folders:
        if not (folder / LOCK).is_file():
            continue
        with _opened(folder / LOCK) as handle:
            if not _take(handle):
                raise ConfigError(
                    f"{_holder(handle)} is at work in this folder",
                    place=str(folder),
                    fix="wait until that study is done or stop it, or leave --restart out",
                )
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    (study / USES).unlink(missing_ok=True)


def _opened(file: Path) -> IO[str]:
    try:
        return file.open("a+", encoding="utf-8")
    except OSError as error:
        raise write_error(error, file) from error


def _take(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: IO[str]) -> str:
    handle.seek(0)
    return handle.read().strip() or "another process"


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _uses(study: Path) -> list[str]:
    file = study / USES
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(
            "damaged: no list of the folders that the study used",
            place=str(file),
            fix="delete the file; --restart then finds nothing to throw away",
        )
    return found
