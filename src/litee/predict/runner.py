"""Runs the members of one backbone: every text once, frozen layers once, branches in one pass.

Knows nothing of ensembles, calibration and the order of a judge's members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from litee.config import Device, Encoder, FitSettings
from litee.encode.budget import TokenBudget
from litee.encode.forest import Forest, Pack, PairEncoder, grow, pack_leaves
from litee.encode.templates import Template
from litee.errors import ModelError
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.attention_pooling import load_query, repeated
from litee.finetune.backbones import Backbone, find_backbone, load_backbone
from litee.finetune.branch import POOLINGS, load_head
from litee.finetune.branch_member import pass_tokens
from litee.finetune.device import choose_device
from litee.finetune.heads import PairHead, RewardHead
from litee.finetune.lengths import pair_states
from litee.finetune.parallel import passes_at_once, side_by_side
from litee.finetune.probe import PairStates, predict_head
from litee.finetune.states import PooledStore, pack_tokens
from litee.finetune.trunk import lay_out, pooled
from litee.predict.artifact import BackboneEntry, MemberEntry
from litee.predict.calibration import Floats
from litee.records import Pair


@dataclass(frozen=True, slots=True)
class MemberOutput:
    """What one member says about a chunk of pairs.

    Attributes:
        probabilities: (n, 3).
        rewards: (n, 2) rewards of A and B, or None for a joint or verdict member.
        cut: (n, 3) tokens cut from prompt, A and B.
    """

    probabilities: Floats
    rewards: Floats | None
    cut: npt.NDArray[np.int64]


#: Where states come from: an adapter, None for the frozen layers, and a depth.
Place = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class Reader:
    """A head, and the adapter whose states it reads; None for the frozen states.

    Attributes:
        adapter: its name.
        head: the head.
        query: (hidden,) of the adapter's attention pooling; None for the plain mean.
    """

    adapter: str | None
    head: PairHead
    query: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member: one reader, or one per branch or source of votes."""

    entry: MemberEntry
    readers: tuple[Reader, ...]

    @property
    def columns(self) -> list[int]:
        """Which of (last, mean) the heads read."""
        return list(POOLINGS[self.entry.pooling])

    def place(self, reader: Reader, exit_depth: int) -> Place:
        """Where one of its readers finds its states."""
        return reader.adapter, self.entry.depth or exit_depth


class BackboneRunner:
    """Runs all members of one backbone over chunks of pairs.

    Args:
        entry: the backbone.
        members: on it.
        folder: of the judge.
        device: where the backbone runs.
    """

    def __init__(
        self,
        entry: BackboneEntry,
        members: Sequence[LoadedMember],
        folder: Path,
        *,
        device: Device = "auto",
    ) -> None:
        self.entry, self.members = entry, members
        self.backbone = _load(entry, device)
        self.encoders: dict[Encoder, PairEncoder] = {}
        for member in members:
            kind = member.entry.encoder or "tree"
            if kind not in self.encoders:
                self.encoders[kind] = pair_encoder(self.backbone, entry, kind)
        self.adapters = self._adapters(folder)
        place = self.backbone.trunk.device
        readers = (reader for member in members for reader in member.readers)
        self.queries = {r.adapter: None if r.query is None else r.query.to(place) for r in readers}

    def _adapters(self, folder: Path) -> Adapters | None:
        starts = [m.entry.start_depth for m in self.members if m.entry.start_depth is not None]
        if not starts:
            return None
        adapters = Adapters(
            self.backbone.trunk, start=min(starts), settings=FitSettings(), backbone=self.entry.name
        )
        for member in self.members:
            own = folder / "members" / member.entry.name
            for reader, branch in zip(member.readers, member.entry.branches, strict=False):
                assert reader.adapter is not None
                adapters.load(reader.adapter, own / branch)
        return adapters

    def run(self, pairs: Sequence[Pair], *, keep_states: bool) -> dict[str, MemberOutput]:
        """Name of each member → its output on the pairs.

        Args:
            pairs: to judge.
            keep_states: take frozen states from the cache folder, and keep new ones there; not
                for a backbone with branches, whose frozen layers are run for them anyway.
        """
        outputs: dict[str, MemberOutput] = {}
        for kind, encoder in self.encoders.items():
            forest = grow([encoder.encode(pair) for pair in pairs])
            members = [m for m in self.members if m.entry.encoder == kind]
            wanted = list(
                dict.fromkeys(m.place(r, self.entry.exit_depth) for m in members for r in m.readers)
            )
            frozen = keep_states and self.adapters is None
            states = self._kept(forest, wanted) if frozen else self._states(forest, wanted)
            for member in members:
                found = []
                for reader in member.readers:
                    place = member.place(reader, self.entry.exit_depth)
                    own = states[place][:, member.columns].reshape(len(forest.leaves), -1)
                    data = pair_states(
                        own,
                        forest,
                        lengths=member.entry.answer_length,
                        longest=member.entry.longest_answer,
                    )
                    found.append(head_output(reader.head, data, forest.cut))
                outputs[member.entry.name] = joined(member.entry, found)
        return outputs

    def _kept(
        self, forest: Forest, wanted: Sequence[Place]
    ) -> dict[Place, npt.NDArray[np.float32]]:
        store = PooledStore(self.backbone, [depth for _, depth in wanted])
        states = store.compute(forest, title=f"answers through {self.entry.name}")
        return {(None, depth): states[:, k] for k, depth in enumerate(store.depths)}

    def _states(
        self, forest: Forest, wanted: Sequence[Place]
    ) -> dict[Place, npt.NDArray[np.float32]]:
        """Place → (leaves, 2, hidden) states there."""
        trunk = self.backbone.trunk
        shape = (len(forest.leaves), 2, trunk.hidden_size)
        found = {place: np.zeros(shape, dtype=np.float32) for place in wanted}
        packs = pack_leaves(forest, range(len(forest.leaves)), pack_tokens(trunk.device))
        some = passes_at_once()
        for first in range(0, len(packs), some):
            chosen = packs[first : first + some]
            below = list(
                side_by_side(partial(self._frozen, forest, found), chosen, device=trunk.device)
            )
            for pack, states in zip(chosen, below, strict=True):
                if states is not None:
                    self._branches(forest, pack, states, found)
        return found

    @torch.inference_mode()
    def _frozen(
        self, forest: Forest, found: dict[Place, npt.NDArray[np.float32]], pack: Pack
    ) -> Tensor | None:
        """States of the frozen readers, put into `found`; those that branches start from."""
        trunk = self.backbone.trunk
        trees = lay_out(forest, pack, trunk.device)
        depths = [depth for adapter, depth in found if adapter is None]
        start, below, states = 0, None, {}
        if self.adapters is not None and any(adapter is not None for adapter, _ in found):
            start = self.adapters.start
            states = trunk.run(trees, depths=[*(d for d in depths if d < start), start])
            below = states[start]
        above = [depth for depth in depths if depth > start]
        if above:
            states = states | trunk.run(trees, start=start, states=below, depths=above)
        for depth in depths:
            rows = pooled(states[depth], trees).cpu().numpy()
            found[None, depth][list(trees.leaves)] = rows
        return below

    @torch.inference_mode()
    def _branches(
        self,
        forest: Forest,
        pack: Pack,
        below: Tensor,
        found: dict[Place, npt.NDArray[np.float32]],
    ) -> None:
        """All branches of a pack, as many in one pass as memory is meant for."""
        trunk, exit_depth = self.backbone.trunk, self.entry.exit_depth
        names_of = [name for name, _ in found if name is not None]
        size = max(1, pass_tokens(trunk.device) // pack_tokens(trunk.device))
        for first in range(0, len(names_of), size):
            assert self.adapters is not None
            start = self.adapters.start
            names = names_of[first : first + size]
            copies = lay_out(forest, Pack(pack.groups * len(names), 0), trunk.device)
            with self.adapters.together([Segment(name, pack.tokens) for name in names]):
                top = trunk.run(
                    copies, start=start, states=below.repeat(len(names), 1), depths=[exit_depth]
                )[exit_depth]
            leaves = copies.leaves[: len(copies.leaves) // len(names)]
            queries = repeated([self.queries[name] for name in names], [len(leaves)] * len(names))
            rows = pooled(top, copies, queries).cpu().numpy()
            for name, values in zip(names, np.split(rows, len(names)), strict=True):
                found[name, exit_depth][list(leaves)] = values


def pair_encoder(backbone: Backbone, entry: BackboneEntry, kind: Encoder) -> PairEncoder:
    """The encoder a judge's entry asks for.

    Raises:
        ModelError: the tokenizer's template is not the one the judge was fitted with.
    """
    chat = entry.template.startswith("chat")
    template = Template(backbone.tokenizer, "chat" if chat else "plain")
    if template.id != entry.template:
        raise ModelError(
            f"template {entry.template}, this litee has {template.id}",
            place=entry.name,
            fix="install the litee that wrote the judge, or fit it again",
        )
    rest = (1 - entry.prompt_share) / 2
    budget = TokenBudget(entry.max_tokens, (entry.prompt_share, rest, rest))
    return PairEncoder(
        template,
        budget,
        encoder=kind,
        shots=entry.verdict_shots,
        max_positions=backbone.max_positions,
    )


def head_output(head: PairHead, data: PairStates, cut: npt.NDArray[np.int64]) -> MemberOutput:
    """Probabilities and rewards of a head on pooled states.

    Raises:
        ModelError: the head was fitted on states of another width.
    """
    if data.states.shape[1] != head.width:
        raise ModelError(
            f"a head for {head.width} numbers per answer was given {data.states.shape[1]}",
            fix="the judge's files do not belong together: copy them again, or fit it again",
        )
    rewards = None
    if isinstance(head, RewardHead):
        with torch.inference_mode():
            values = head.reward(torch.from_numpy(np.asarray(data.states, np.float32))).numpy()
        rewards = np.stack([values[data.left], values[data.right]], axis=1).astype(np.float64)
    return MemberOutput(predict_head(head, data), rewards, cut)


def bagged(outputs: Sequence[MemberOutput]) -> MemberOutput:
    """Branches of one member as one: log probabilities and rewards averaged.

    For Davidson heads this is the head with the mean reward and the mean tie score, so that
    rewards keep their meaning.

    >>> one = MemberOutput(np.array([[0.8, 0.1, 0.1]]), None, np.zeros((1, 3), np.int64))
    >>> two = MemberOutput(np.array([[0.2, 0.4, 0.4]]), None, np.zeros((1, 3), np.int64))
    >>> bagged([one, two]).probabilities.round(3).tolist()
    [[0.5, 0.25, 0.25]]
    """
    if len(outputs) == 1:
        return outputs[0]
    mean = np.mean([np.log(np.maximum(o.probabilities, 1e-30)) for o in outputs], axis=0)
    likely = np.exp(mean - mean.max(1, keepdims=True))
    rewards = [o.rewards for o in outputs if o.rewards is not None]
    return MemberOutput(
        likely / likely.sum(1, keepdims=True),
        np.mean(rewards, axis=0) if rewards else None,
        outputs[0].cut,
    )


def joined(entry: MemberEntry, outputs: Sequence[MemberOutput]) -> MemberOutput:
    """What a member says when its readers have said this: branches bagged, sources averaged."""
    return averaged(outputs) if entry.sources else bagged(outputs)


def averaged(outputs: Sequence[MemberOutput]) -> MemberOutput:
    """Heads of several sources as one: probabilities and rewards averaged.

    >>> one = MemberOutput(np.array([[0.8, 0.2, 0.0]]), None, np.zeros((1, 3), np.int64))
    >>> two = MemberOutput(np.array([[0.2, 0.2, 0.6]]), None, np.zeros((1, 3), np.int64))
    >>> averaged([one, two]).probabilities.round(3).tolist()
    [[0.5, 0.2, 0.3]]
    """
    rewards = [o.rewards for o in outputs if o.rewards is not None]
    return MemberOutput(
        np.mean([o.probabilities for o in outputs], axis=0),
        np.mean(rewards, axis=0) if rewards else None,
        outputs[0].cut,
    )


def member_readers(entry: MemberEntry, folder: Path) -> tuple[Reader, ...]:
    """The heads of a member, one per branch or source, from a judge's folder."""
    own = folder / "members" / entry.name
    if entry.sources:
        files = [own / f"source{k}" / "head.safetensors" for k in range(len(entry.sources))]
        return tuple(Reader(None, load_head(entry.head, file)) for file in files)
    if not entry.branches:
        return (Reader(None, load_head(entry.head, own / "head.safetensors")),)
    name = entry.name.replace(".", "_dot_")  # PEFT takes no dots
    attends = entry.branch_pooling == "attention"
    return tuple(
        Reader(
            f"{name}-{branch}",
            load_head(entry.head, own / branch / "head.safetensors"),
            load_query(own / branch) if attends else None,
        )
        for branch in entry.branches
    )


def _load(entry: BackboneEntry, device: Device) -> Backbone:
    found = find_backbone(entry.name)
    if found.sha256 != entry.sha256:
        raise ModelError(
            f"its weights have sha256 {found.sha256[:12]}…, the judge was fitted on "
            f"{entry.sha256[:12]}…",
            place=entry.name,
            fix="get the same revision of the backbone, or fit the judge again",
        )
    return load_backbone(
        found,
        depth=entry.exit_depth,
        dtype=getattr(torch, entry.dtype),
        device=choose_device(device, "int8" if entry.int8_layers else "auto"),
        int8_layers=entry.int8_layers,
        nf4=entry.nf4,
    )
