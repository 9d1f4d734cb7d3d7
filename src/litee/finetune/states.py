"""States of a forest under a frozen trunk, computed once and kept on disk.

Two stores. `PooledStore` keeps the pooled states of answers, addressed by their token ids, so that
runs, folds, members and sweeps over the same texts share them. `TokenStore` keeps the states of
every token at one layer, from which LoRA branches train without running the layers below again.
Both survive kill -9: what is on disk is whole, the rest is computed again in the same packs.
Knows nothing of votes and heads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from litee.encode.forest import Forest, Pack, pack_leaves
from litee.finetune.backbones import Backbone, cache_folder
from litee.finetune.deadline import Deadline
from litee.finetune.parallel import side_by_side
from litee.finetune.trunk import Trunk, lay_out, pooled
from litee.progress import progress
from litee.rundir import atomic_path, write_error, write_json

T = TypeVar("T")

#: Tokens that go through the trunk at once: enough to fill the arithmetic units of a CPU.
PACK_TOKENS = 2048
#: The same for a GPU, where it takes more.
PACK_TOKENS_GPU = 16384

_SHARD_PACKS = 16

_elsewhere: ContextVar[Path | None] = ContextVar("elsewhere", default=None)


@contextmanager
def states_in(folder: Path) -> Iterator[None]:
    """Within the block pooled states are kept below this folder, not in the shared cache.

    For measuring what a fit costs where nothing has been computed yet.
    """
    token = _elsewhere.set(folder)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def pack_tokens(device: torch.device) -> int:
    """Tokens that go through a trunk at once on this device.

    >>> pack_tokens(torch.device("cpu"))
    2048
    """
    return PACK_TOKENS_GPU if device.type == "cuda" else PACK_TOKENS


def leaf_keys(forest: Forest) -> list[bytes]:
    """16-byte content address of every leaf: its prefix's and its own token ids."""
    roots = [
        hashlib.blake2b(np.array(p, np.int32).tobytes(), digest_size=16) for p in forest.prefixes
    ]
    keys = []
    for prefix, ids in forest.leaves:
        digest = roots[prefix].copy()
        digest.update(b"|" + np.array(ids, np.int32).tobytes())
        keys.append(digest.digest())
    return keys


class PooledStore:
    """Pooled states on disk, content-addressed, append-only.

    Args:
        backbone: whose states; the store's folder is named by its weights' sha256 and data type.
        depths: layers after which states are kept, ascending.
        folder: parent folder; the user's cache folder when None.
        cache_bytes: most that all states in `folder` may take on disk after `compute`; the least
            recently used are deleted. None keeps all.
    """

    def __init__(
        self,
        backbone: Backbone,
        depths: Sequence[int],
        *,
        folder: Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self.cache_bytes = cache_bytes
        self.trunk = backbone.trunk
        self.depths = tuple(sorted(set(depths)))
        kind = str(self.trunk.dtype).removeprefix("torch.")
        if backbone.int8_layers:
            some = backbone.int8_layers < self.depths[-1]
            kind += f"+int8.{backbone.int8_layers}" if some else "+int8"
        kind += "+nf4" if backbone.nf4 else ""
        self._kind = f"{backbone.folder.sha256[:16]}-{kind}"
        self._parent = (folder or _elsewhere.get() or cache_folder()) / "states"
        self.folder = self._parent / f"{self._kind}-{'-'.join(map(str, self.depths))}"
        self.seconds = 0.0
        self.tokens_run = 0

    def compute(
        self, forest: Forest, *, title: str, deadline: Deadline | None = None
    ) -> npt.NDArray[np.float32]:
        """States of every leaf: from disk where they are, else computed and kept.

        Args:
            forest: the texts.
            title: of the progress bar.
            deadline: asked after each shard; what is on disk by then stays.

        Returns:
            (leaves, depths, 2, hidden): last and mean state after each of `depths`.

        Raises:
            TimeUpError: the deadline has passed.
        """
        shape = (len(forest.leaves), len(self.depths), 2, self.trunk.hidden_size)
        states = np.zeros(shape, dtype=np.float32)
        keys = leaf_keys(forest)
        started = time.monotonic()
        have = self._read(keys, states)
        packs = [
            pack
            for pack in pack_leaves(forest, range(len(keys)), pack_tokens(self.trunk.device))
            if not all(have[leaf] for _, leaves in pack.groups for leaf in leaves)
        ]
        with progress(title, sum(p.tokens for p in packs), "tokens") as advance:
            for shard in _chunks(packs, _SHARD_PACKS):
                fresh: list[int] = []
                passes = side_by_side(partial(self._run, forest), shard, device=self.trunk.device)
                for pack, found in zip(shard, passes, strict=True):
                    for leaf, value in found.items():
                        if not have[leaf]:
                            states[leaf] = value
                            have[leaf] = True
                            fresh.append(leaf)
                    self.tokens_run += pack.tokens
                    advance(pack.tokens)
                    if deadline is not None and deadline.passed():
                        passes.close()
                        break
                self._write([keys[leaf] for leaf in fresh], states[fresh])
                if deadline is not None and not have.all():
                    deadline.check()
        self.seconds += time.monotonic() - started
        self._prune()
        return states

    def kept_tokens(self, forest: Forest) -> int:
        """Tokens of a forest that `compute` would not run, because their states are on disk."""
        shape = (len(forest.leaves), len(self.depths), 2, self.trunk.hidden_size)
        have = self._read(leaf_keys(forest), np.zeros(shape, dtype=np.float32))
        size = pack_tokens(self.trunk.device)
        packs = pack_leaves(forest, range(len(forest.leaves)), size)
        return sum(
            pack.tokens
            for pack in packs
            if all(have[leaf] for _, leaves in pack.groups for leaf in leaves)
        )

    def _run(self, forest: Forest, pack: Pack) -> dict[int, npt.NDArray[np.float32]]:
        trees = lay_out(forest, pack, self.trunk.device)
        with torch.inference_mode():
            found = self.trunk.run(trees, depths=self.depths)
            stacked = torch.stack([pooled(found[d], trees) for d in self.depths], dim=1)
        return dict(zip(trees.leaves, stacked.cpu().numpy(), strict=True))

    def _read(self, keys: list[bytes], states: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        have = np.zeros(len(keys), dtype=bool)
        wanted: dict[bytes, list[int]] = {}  # answers that were cut to the same have one key
        for leaf, key in enumerate(keys):
            wanted.setdefault(key, []).append(leaf)
        used: set[Path] = set()
        for shard, columns in self._shards():
            try:
                tensors = load_file(shard)
            except FileNotFoundError:  # another run needed the space
                continue
            except SafetensorError:  # damaged on the disk: its states are computed again
                shard.unlink(missing_ok=True)
                continue
            for row, key in enumerate(tensors["keys"]):
                for leaf in wanted.pop(key.tobytes(), []):
                    states[leaf] = tensors["states"][row][columns]
                    have[leaf] = True
                    used.add(shard)
        for shard in used:
            with suppress(FileNotFoundError):
                os.utime(shard)
        return have

    def _prune(self) -> None:
        """Delete the least recently used files of all backbones, down to `cache_bytes`."""
        if self.cache_bytes is None:
            return
        found = []
        for file in self._parent.glob("*/*.safetensors"):
            with suppress(FileNotFoundError):
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        over = sum(size for _, size, _ in found) - self.cache_bytes
        for _, size, file in sorted(found):
            if over <= 0:
                break
            file.unlink(missing_ok=True)
            over -= size

    def _shards(self) -> Iterator[tuple[Path, list[int]]]:
        """Files that hold all wanted depths, and the columns these have there."""
        for folder in sorted(self._parent.glob(f"{self._kind}-*")):
            depths = [int(d) for d in folder.name.removeprefix(f"{self._kind}-").split("-")]
            if set(self.depths) <= set(depths):
                columns = [depths.index(d) for d in self.depths]
                for shard in sorted(folder.glob("*.safetensors")):
                    yield shard, columns

    def _write(self, keys: list[bytes], states: npt.NDArray[np.float32]) -> None:
        if not keys:
            return
        name = hashlib.blake2b(b"".join(keys), digest_size=12).hexdigest()
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
        with atomic_path(self.folder / f"{name}.safetensors") as temporary:
            save_file({"keys": packed, "states": np.ascontiguousarray(states)}, temporary)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where the tokens of prefixes and leaves lie in a token store."""

    prefixes: npt.NDArray[np.int64]
    leaves: npt.NDArray[np.int64]
    total: int


class TokenStore:
    """States of every token of a forest before the LoRA layers.

    Kept in one memory-mapped file in the trunk's own data type; when the file would be larger than
    `cache_bytes` or than the free disk, the states are computed again each time they are needed
    (same packs of trees, so the results do not depend on the order of use).

    Args:
        trunk: the frozen layers.
        forest: the texts.
        depth: number of layers run below.
        folder: where the file lies; one store per folder.
        cache_bytes: upper bound of the file.
    """

    def __init__(
        self, trunk: Trunk, forest: Forest, *, depth: int, folder: Path, cache_bytes: int
    ) -> None:
        self.trunk, self.forest, self.depth, self.folder = trunk, forest, depth, folder
        self.tokens_run = 0
        prefixes = np.array([len(p) for p in forest.prefixes], dtype=np.int64)
        leaves = np.array([len(ids) for _, ids in forest.leaves], dtype=np.int64)
        ends = np.cumsum(np.concatenate([prefixes, leaves]))
        starts = np.concatenate([[0], ends[:-1]])
        total = int(ends[-1])
        self._rows = _Rows(starts[: len(prefixes)], starts[len(prefixes) :], total)
        item = torch.empty((), dtype=trunk.dtype).element_size()
        self.bytes = total * trunk.hidden_size * item
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "tokens.bin"
        held = file.stat().st_blocks * 512 if file.exists() else 0  # by an earlier session
        free = shutil.disk_usage(folder).free + held
        self.kept = bool(self._decide("kept", self.bytes <= min(cache_bytes, int(0.8 * free))))
        self._pack = int(self._decide("pack_tokens", pack_tokens(trunk.device)))
        self._file: Tensor | None = None

    def _decide(self, name: str, now: int) -> int:
        """As decided when the store was new, whatever the disk and the device are now."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_json(file, now)
        return int(json.loads(file.read_text(encoding="utf-8")))

    def fill(self, *, title: str, deadline: Deadline | None = None) -> None:
        """Compute what is not on disk yet; nothing when the states are not kept.

        Raises:
            TimeUpError: the deadline has passed; what was computed stays.
        """
        if not self.kept:
            return
        data = self._open()
        packs = pack_leaves(self.forest, range(len(self.forest.leaves)), self._pack)
        done = {int(p.stem) for p in (self.folder / "packs").glob("*.json")}
        todo = [(n, pack) for n, pack in enumerate(packs) if n not in done]
        with progress(title, sum(p.tokens for _, p in todo), "tokens") as advance:
            for shard in _chunks(todo, _SHARD_PACKS):
                passes = side_by_side(
                    self._compute, [pack for _, pack in shard], device=self.trunk.device
                )
                for (_, pack), states in zip(shard, passes, strict=True):
                    for rows, at in self._spans(pack):
                        data[rows] = states[at]
                    self.tokens_run += pack.tokens
                    advance(pack.tokens)
                self._flush()
                for number, pack in shard:
                    write_json(self.folder / "packs" / f"{number}.json", {"tokens": pack.tokens})
                if deadline is not None:
                    deadline.check()

    def states(self, pack: Pack) -> Tensor:
        """(pack tokens, hidden) states in packed order, on the trunk's device."""
        if not self.kept:
            self.tokens_run += pack.tokens
            return self._compute(pack)
        data = self._open()
        return torch.cat([data[rows] for rows, _ in self._spans(pack)]).to(self.trunk.device)

    def _compute(self, pack: Pack) -> Tensor:
        with torch.no_grad():
            trees = lay_out(self.forest, pack, self.trunk.device)
            return self.trunk.run(trees, depths=[self.depth])[self.depth]

    def _spans(self, pack: Pack) -> Iterator[tuple[slice, slice]]:
        """(rows in the file, rows in the pack) of each prefix and leaf of a pack, in order."""
        at = 0
        for prefix, leaves in pack.groups:
            first = int(self._rows.prefixes[prefix])
            length = len(self.forest.prefixes[prefix])
            yield slice(first, first + length), slice(at, at + length)
            at += length
            for leaf in leaves:
                first = int(self._rows.leaves[leaf])
                length = len(self.forest.leaves[leaf][1])
                yield slice(first, first + length), slice(at, at + length)
                at += length

    def _open(self) -> Tensor:
        if self._file is None:
            size = self._rows.total * self.trunk.hidden_size
            path = self.folder / "tokens.bin"
            try:  # take the space now: a mapped page that finds no place on the disk kills us
                with path.open("ab") as handle:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(handle.fileno(), 0, self.bytes)
            except OSError as error:
                raise write_error(error, path) from error
            self._file = torch.from_file(
                str(path), shared=True, size=size, dtype=self.trunk.dtype
            ).view(self._rows.total, self.trunk.hidden_size)
        return self._file

    def _flush(self) -> None:
        """Bring the written pages to disk before the packs are marked as finished."""
        with (self.folder / "tokens.bin").open("rb+") as handle:
            os.fsync(handle.fileno())

    def remove(self) -> None:
        """Delete the file: branches are trained and need it no more."""
        self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
