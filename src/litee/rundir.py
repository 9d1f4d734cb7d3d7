"""A run's folder: manifest, finished stages, receipt. Every write is atomic.

A killed run leaves either the old file or the new one, never half of one, so a later run with
`resume=True` finds the finished stages and repeats only the others. Knows nothing of what a
stage computes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, TypeAlias

from litee.errors import ConfigError, LiteeError, ResourceError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_VERSIONED = (
    "lora-litee",
    "torch",
    "transformers",
    "peft",
    "trl",
    "tokenizers",
    "scikit-learn",
    "scipy",
    "numpy",
    "safetensors",
)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` that replaces it when the block ends without an error.

    Raises:
        ResourceError: when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    except Exception as error:
        # safetensors wraps the operating system's errors in one of its own
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, LiteeError) or number is None:
            raise
        code = int(number[1])
        raise write_error(OSError(code, os.strerror(code)), path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_error(error: OSError, path: Path) -> ResourceError:
    """The message for a failed write to `path`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
        fix = "free some space or choose another --out; then run again with --resume"
        return ResourceError(
            f"no space left on the disk ({free / 1e6:.0f} MB free)", place=str(path), fix=fix
        )
    fix = "check that the folder exists and may be written"
    return ResourceError(f"cannot write: {error.strerror}", place=str(path), fix=fix)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Json) -> None:
    """Write JSON atomically: two spaces, keys in the given order, no NaN.

    Raises:
        ValueError: when the value holds NaN or an infinity.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[str]]:
    """A text stream whose content appears at `path` only when the block ends without an error."""
    with atomic_path(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            yield handle


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Json) -> str:
    """Hex SHA-256 of a JSON value's canonical form (sorted keys, no spaces).

    >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 1e6 if sys.platform == "darwin" else kib * 1024 / 1e6


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a result, and Python's."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(slots=True)
class Receipt:
    """What a run cost, and what it was made from.

    Attributes:
        seconds: wall time, summed over resumed sessions.
        tokens: tokens that went through a backbone.
        peak_rss_mb: largest resident memory in MB.
        peak_gpu_mb: largest GPU memory in MB, None without a GPU.
        device: the processor or GPU, in words.
        threads: compute threads.
        seed: the run's seed.
        versions: library → version.
        inputs: input path → sha256.
        stages: stage → seconds.
        predicted: seconds and peak_rss_mb of the plan, when there was a budget.
    """

    seconds: float = 0.0
    tokens: int = 0
    peak_rss_mb: float = 0.0
    peak_gpu_mb: float | None = None
    device: str = ""
    threads: int = 1
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Receipt:
        """The receipt that a run has written into its folder."""
        written = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))
        return cls(**written)

    def include(self, part: Receipt) -> None:
        """Add what a part has cost; device, threads, seed and versions are the part's."""
        self.seconds = round(self.seconds + part.seconds, 3)
        self.tokens += part.tokens
        self.peak_rss_mb = max(self.peak_rss_mb, part.peak_rss_mb)
        self.device, self.threads, self.seed = part.device, part.threads, part.seed
        self.versions = part.versions
        self.inputs |= part.inputs

    def to_json(self) -> dict[str, Json]:
        """The receipt as plain JSON."""
        return asdict(self)


class RunDir:
    """A folder that holds one run.

    Args:
        path: the folder; made when missing.
        manifest: what defines the run (settings, seed, input hashes). It is stored, and a
            resumed run must bring the same one.
        resume: continue an earlier run instead of refusing a folder that has one.
        settings: defaults of the manifest's settings. A setting that a run of an earlier version
            did not know yet had its default there.

    Raises:
        ConfigError: the folder already holds a run and `resume` is false, or the manifest differs.
    """

    def __init__(
        self,
        path: Path,
        manifest: Mapping[str, Json],
        *,
        resume: bool,
        settings: Mapping[str, Json] | None = None,
    ) -> None:
        self.path = path
        self._settings = dict(settings or {})
        self.started = time.monotonic()
        self._file = path / "manifest.json"
        if path.exists() and not path.is_dir():
            raise ConfigError("not a folder", place=str(path), fix="choose a new --out folder")
        if self._file.exists():
            self._check(manifest, resume=resume)
            for half_written in path.rglob(".*.tmp"):
                half_written.unlink(missing_ok=True)
        elif path.exists() and any(path.iterdir()) and not resume:
            raise ConfigError(
                "the folder is not empty and holds no run",
                place=str(path),
                fix="choose a new --out folder",
            )
        else:
            write_json(self._file, manifest)

    def _check(self, manifest: Mapping[str, Json], *, resume: bool) -> None:
        place = str(self.path)
        if not resume:
            fix = "add --resume to continue it, or choose a new --out folder"
            raise ConfigError("the folder already holds a run", place=place, fix=fix)
        try:
            old = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fix = "choose a new --out folder"
            raise ConfigError(f"damaged: {error}", place=str(self._file), fix=fix) from error
        new = json.loads(json.dumps(manifest))
        changed = _differences(with_new_settings(old, self._settings), new)
        if changed:
            raise ConfigError(
                "the run to resume was started with other settings: " + "; ".join(changed[:5]),
                place=place,
                fix="resume with the same files and settings, or choose a new --out folder",
            )

    def done(self, stage: str) -> bool:
        """Whether a stage was finished by this or an earlier session."""
        return (self.path / "stages" / f"{stage}.json").exists()

    def finish(self, stage: str, seconds: float, tokens: int = 0) -> None:
        """Mark a stage as finished; call it after the stage's files were written."""
        record = {
            "seconds": round(seconds, 3),
            "tokens": tokens,
            "peak_rss_mb": round(peak_rss_mb(), 1),
        }
        write_json(self.path / "stages" / f"{stage}.json", record)

    def run(self, stage: str, work: Callable[[], int]) -> bool:
        """Run `work` unless the stage is finished; its result is the number of tokens processed.

        Returns:
            True when the stage was run now, False when it was finished before.
        """
        if self.done(stage):
            return False
        started = time.monotonic()
        tokens = work()
        self.finish(stage, time.monotonic() - started, tokens)
        return True

    def receipt(self, *, seed: int, threads: int, device: str, inputs: dict[str, str]) -> Receipt:
        """Add up the stages of all sessions."""
        receipt = Receipt(seed=seed, threads=threads, device=device, inputs=inputs)
        receipt.versions = versions()
        receipt.peak_rss_mb = round(peak_rss_mb(), 1)
        for file in sorted((self.path / "stages").glob("*.json")):
            stage = json.loads(file.read_text(encoding="utf-8"))
            receipt.stages[file.stem] = stage["seconds"]
            receipt.tokens += stage["tokens"]
            receipt.peak_rss_mb = max(receipt.peak_rss_mb, stage["peak_rss_mb"])
        receipt.seconds = round(sum(receipt.stages.values()), 3)
        return receipt


def with_new_settings(manifest: Json, usual: Mapping[str, Json]) -> Json:
    """A manifest of an earlier version, with the settings that have come since at their defaults.

    >>> with_new_settings({"settings": {"a": 1}, "pairs": 3}, {"a": 0, "b": 2})
    {'settings': {'a': 1, 'b': 2}, 'pairs': 3}
    """
    if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
        return manifest
    known = json.loads(json.dumps(dict(usual)))
    return {
        **manifest,
        "settings": manifest["settings"]
        | {name: value for name, value in known.items() if name not in manifest["settings"]},
    }


def _differences(old: Json, new: Json, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ, as `name: old → new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: list[str] = []
        for key in sorted(set(old) | set(new)):
            found += _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        return found
    return [] if old == new else [f"{prefix[:-1]}: {old!r} → {new!r}"]


def cpu_name() -> str:
    """The processor's name, with the number of cores this process may use.

    >>> "core" in cpu_name()
    True
    """
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {usable_cores()} cores"


def usable_cores() -> int:
    """CPU cores this process may run on (not those of the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def scratch_dir(prefix: str) -> Path:
    """A fresh temporary folder; the caller removes it."""
    return Path(tempfile.mkdtemp(prefix=prefix))
