"""`hf://owner/name[:split]` to local files, through huggingface_hub.

Knows nothing of what the files hold. Nothing is downloaded unless a path starts with `hf://`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from litee.errors import InputError

_PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<repo>[^/:\s]+/[^/:\s]+)(?::(?P<split>[\w.-]+))?")
_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".json", ".json.gz", ".tsv")


def is_hub_path(path: str | Path) -> bool:
    """Whether a path names a data set on the hub.

    >>> is_hub_path("hf://lmsys/mt_bench_human_judgments:human"), is_hub_path("votes.csv")
    (True, False)
    """
    return str(path).startswith(_PREFIX)


def fetch(path: str) -> tuple[Path, ...]:
    """Download the data files of a hub data set into the hub's cache.

    Raises:
        InputError: the name is malformed, huggingface_hub is missing, there is no network, or the
            data set has no readable file or none of the split.
    """
    match = _NAME.fullmatch(path)
    if match is None:
        raise InputError(
            "not a hub data set", place=path, fix="write hf://owner/name or hf://owner/name:split"
        )
    repo, split = match["repo"], match["split"]
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        fix = "pip install huggingface_hub, or download the file elsewhere and pass it"
        raise InputError("huggingface_hub is not installed", place=path, fix=fix) from error
    try:
        names = hub.list_repo_files(repo, repo_type="dataset")
        chosen = choose_files(names, split, path)
        return tuple(Path(hub.hf_hub_download(repo, name, repo_type="dataset")) for name in chosen)
    except InputError:
        raise
    except Exception as error:  # the hub raises httpx, OSError and its own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = (
            f"check the name and the network; or download the data elsewhere "
            f"(https://huggingface.co/datasets/{repo}) and pass the file"
        )
        raise InputError(f"cannot fetch from the hub: {reason}", place=path, fix=fix) from error


def choose_files(names: list[str], split: str | None, place: str) -> tuple[str, ...]:
    """The data files of one split; without a split there must be one file, or one split's parts.

    >>> choose_files(["README.md", "data/human-0.parquet", "data/gpt4-0.parquet"], "human", "hf://o/n")
    ('data/human-0.parquet',)

    Raises:
        InputError: none fits, or several splits and none was named.
    """
    data = sorted(name for name in names if name.lower().endswith(_ENDINGS))
    if not data:
        fix = f"readable endings: {', '.join(_ENDINGS)}; convert the data and pass the file"
        raise InputError("the data set has no readable file", place=place, fix=fix)
    splits = sorted({_split_of(name) for name in data})
    if split is None:
        if len(splits) > 1:
            fix = f"name one: {place}:{splits[0]} (found: {', '.join(splits)})"
            raise InputError("the data set has several splits", place=place, fix=fix)
        return tuple(data)
    chosen = tuple(name for name in data if _split_of(name) == split)
    if not chosen:
        fix = f"name one of: {', '.join(splits)}"
        raise InputError(f"no file of split {split!r}", place=place, fix=fix)
    return chosen


def _split_of(name: str) -> str:
    """`data/train-00000-of-00002-ab12.parquet` → `train`."""
    return re.split(r"-\d|\.", Path(name).name, maxsplit=1)[0]
