"""Where studies keep what several of them need: folders named after all that determines them.

What was made for one study is found by the next, and by the same study when it goes on. Knows
nothing of what is kept.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from litee.rundir import Json, sha256_json, write_json

#: In a study's folder: which folders of the store it used.
USES = "uses.json"

_FOLDER = re.compile(r"[a-z]+/[0-9a-f]{16}")


class Store:
    """Folders that are addressed by what is made in them.

    Args:
        root: the store's folder, shared by studies.
        study: folder of the study, which notes there what it has ever used.
    """

    def __init__(self, root: Path, study: Path) -> None:
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


def throw_away(root: Path, study: Path) -> None:
    """Remove what a study used from the store, for a fresh start; nothing when it used none."""
    for name in _uses(study):
        if _FOLDER.fullmatch(name):
            shutil.rmtree(root / name, ignore_errors=True)
    (study / USES).unlink(missing_ok=True)


def _uses(study: Path) -> list[str]:
    file = study / USES
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []
