"""Fits all members of one backbone: depth search, pooled states, probes, LoRA branches.

Knows nothing of the other backbones and of the ensemble.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from litee.config import ENCODER_MEMBERS, Encoder, FitSettings, MemberKind
from litee.encode.budget import TokenBudget
from litee.encode.forest import Forest, PairEncoder, grow
from litee.encode.templates import Template
from litee.errors import ConfigError
from litee.finetune.adapters import Adapters
from litee.finetune.backbones import Backbone, BackboneFolder, count_layers, load_backbone
from litee.finetune.branch import POOLINGS
from litee.finetune.branch_member import BranchPlan, fit_branch_member
from litee.finetune.deadline import Deadline
from litee.finetune.device import DtypeName
from litee.finetune.heads import HeadName, PairHead
from litee.finetune.lengths import pair_states
from litee.finetune.members import Fitted, fit_probe_member, keep_fixed_member, probe_depths
from litee.finetune.probe import PairStates
from litee.finetune.states import PooledStore, TokenStore
from litee.finetune.task import Task, cross_entropy
from litee.predict.artifact import BackboneEntry, MemberEntry
from litee.predict.depths import DEPTH_RIDGE, DepthSearch, candidate_depths, sample_pairs
from litee.predict.verdict_head import verdict_head
from litee.records import Pair
from litee.rundir import RunDir, write_json


@dataclass(frozen=True, slots=True)
class Cut:
    """Tokens of one backbone's encoding.

    Attributes:
        max_tokens: budget per pair.
        pairs: number of pairs.
        pairs_cut: pairs of which something was cut.
        tokens: of two plain sequences (prompt and answer) per pair.
        tokens_run: after prompts and answers were shared.
        tokens_cut: left out, over all pairs.
    """

    max_tokens: int
    pairs: int
    pairs_cut: int
    tokens: int
    tokens_run: int
    tokens_cut: int


@dataclass(slots=True)
class Members:
    """Members as they are fitted, in order."""

    entries: list[MemberEntry] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    backbones: list[BackboneEntry] = field(default_factory=list)
    depths: list[DepthSearch] = field(default_factory=list)
    cuts: dict[str, Cut] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    def time_up(self, backbone: str) -> None:
        """Note that not all members of a backbone were there in time."""
        whole = [e.name for e in self.entries if e.backbone == backbone]
        if not whole:
            self.backbones = [b for b in self.backbones if b.name != backbone]
        kept = f"only {', '.join(whole)} counts" if whole else "none of its members counts"
        self.late.append(
            f"The time was up while {backbone} was fitted: {kept}. "
            "What was computed is kept, and a longer budget with --resume goes on from it."
        )

    def add(self, entry: MemberEntry, fitted: Fitted, task: Task) -> None:
        """Append a member, with its held-out loss."""
        loss = cross_entropy(fitted.out_of_fold, task.shares, task.weights)
        steps = fitted.best_steps[-len(fitted.branches) :] if fitted.branches else ()
        loss = round(loss, 6)
        update = {"held_out_log_loss": loss, "best_steps": steps, "sources": fitted.sources}
        self.entries.append(entry.model_copy(update=update))
        self.fitted.append(fitted)


def slug(name: str) -> str:
    """A backbone's name as part of a file name.

    >>> slug("google/gemma-2-9b-it")
    'google-gemma-2-9b-it'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "backbone"


class BackboneFit:
    """Fits the members of one backbone.

    Args:
        folder: the backbone on disk.
        dtype: of the frozen layers.
        device: where they run.
        pairs: all pairs.
        task: their votes.
        settings: what to fit.
        run: where results are kept.
        deadline: when the members have to be there.
    """

    def __init__(
        self,
        folder: BackboneFolder,
        *,
        dtype: DtypeName,
        device: torch.device,
        pairs: Sequence[Pair],
        task: Task,
        settings: FitSettings,
        run: RunDir,
        deadline: Deadline,
    ) -> None:
        self.deadline = deadline
        self.folder, self.dtype, self.pairs = folder, dtype, pairs
        self.device = device
        self.task, self.settings, self.run = task, settings, run
        self.slug = slug(folder.name)
        self.columns = POOLINGS[settings.pooling]
        self.tree_head: HeadName = settings.head

    def fit(self, members: Members) -> None:
        """Fit what the settings ask for, and append it member by member.

        Raises:
            TimeUpError: the deadline has passed; members appended by then are whole.
        """
        search = self._depth()
        members.depths.append(search)
        backbone = self._load(search.exit_depth)
        encoder = self._encoder(backbone, "tree")
        members.backbones.append(
            BackboneEntry(
                name=self.folder.name,
                sha256=self.folder.sha256,
                dtype=self.dtype,
                exit_depth=search.exit_depth,
                template=encoder.template.id,
                max_tokens=self.settings.max_tokens,
                prompt_share=self.settings.prompt_share,
                verdict_shots=self.settings.verdict_shots,
                int8_layers=backbone.int8_layers,
                nf4=backbone.nf4,
            )
        )
        for kind in ENCODER_MEMBERS:
            if self.settings.encodes(kind):
                self._encoder_members(backbone, kind, search.taken, members)

    def _encoder_members(
        self, backbone: Backbone, kind: Encoder, depths: Sequence[int], members: Members
    ) -> None:
        """A member on the frozen states of every depth, and the LoRA member on the deepest."""
        frozen, tuned = ENCODER_MEMBERS[kind]
        forest = grow([self._encoder(backbone, kind).encode(pair) for pair in self.pairs])
        members.cuts[f"{self.folder.name} ({kind})"] = _cut(forest, self.settings.max_tokens)
        store = PooledStore(backbone, depths, cache_bytes=self.settings.cache_bytes)
        title = f"{self.slug}: {'answers' if kind == 'tree' else f'{kind} sequences'}"
        states = store.compute(forest, title=title, deadline=self.deadline)
        self._count(f"states-{kind}-{self.slug}", store)
        fixed: PairHead | None = None
        taken: tuple[float, ...] = ()
        if kind == "verdict":
            fixed = verdict_head(backbone, self._encoder(backbone, kind).template)
        for number, depth in enumerate(depths):
            place = None if depth == depths[-1] else depth
            entry = self._entry(frozen, kind, place, int(forest.characters.max(initial=0)))
            if frozen not in self.settings.members and entry.depth is not None:
                continue  # only branches are wanted, which start at the deepest
            columns = list(POOLINGS[entry.pooling])
            flat = states[:, number][:, columns].reshape(len(states), -1)
            data = pair_states(flat, forest, lengths=entry.answer_length)
            if frozen not in self.settings.members:
                continue
            if fixed is None:
                ridges, head = self.settings.ridge, entry.head
                fitted = fit_probe_member(
                    entry.name, data, self.task, run=self.run, ridges=ridges, head=head
                )
                taken = fitted.ridges
            else:
                fitted = keep_fixed_member(entry.name, data, fixed, run=self.run)
            members.add(entry, fitted, self.task)
        if tuned in self.settings.members:
            entry = entry.model_copy(update={"name": f"{tuned}-{self.slug}", "kind": "lora"})
            self._branches(backbone, forest, data, entry, start=fixed or taken, members=members)

    def _entry(
        self, member: MemberKind, kind: Encoder, depth: int | None, longest: int
    ) -> MemberEntry:
        """A member on frozen states; `depth` is None at the exit."""
        reads = self.settings.answer_length and kind == "tree"
        return MemberEntry(
            name=member + ("" if depth is None else f"-depth{depth}") + f"-{self.slug}",
            kind="probe",
            encoder=kind,
            backbone=self.folder.name,
            head=self.tree_head if kind == "tree" else kind,
            pooling="last" if kind == "verdict" else self.settings.pooling,
            answer_length=reads,
            longest_answer=longest if reads else None,
            depth=depth,
        )

    def _branches(
        self,
        backbone: Backbone,
        forest: Forest,
        data: PairStates,
        entry: MemberEntry,
        *,
        start: PairHead | tuple[float, ...],
        members: Members,
    ) -> None:
        trunk = backbone.trunk
        lowest = trunk.depth - self.settings.lora_layers
        if lowest < 0:
            raise ConfigError(
                f"lora_layers = {self.settings.lora_layers} is more than the exit depth "
                f"{trunk.depth} of {self.folder.name}",
                fix=f"use --lora-layers {trunk.depth} or less",
            )
        store = TokenStore(
            trunk,
            forest,
            depth=lowest,
            folder=self.run.path / "run" / f"{entry.name}-tokens",
            cache_bytes=self.settings.cache_bytes,
        )
        adapters = Adapters(trunk, start=lowest, settings=self.settings, backbone=self.folder.name)
        way = self.settings.branch_pooling
        plan = BranchPlan(
            entry.name, data, store, adapters, entry.head, start, entry.pooling, way == "attention"
        )
        try:
            fitted = fit_branch_member(
                plan, self.task, settings=self.settings, run=self.run, deadline=self.deadline
            )
        finally:
            adapters.remove()
        store.remove()
        update = {"start_depth": lowest, "branches": fitted.branches, "branch_pooling": way}
        entry = entry.model_copy(update=update)
        members.add(entry, fitted, self.task)

    def _depth(self) -> DepthSearch:
        """The exit depth: as given, or the best of a probe over a sample of pairs."""
        file = self.run.path / "run" / f"depth-{self.slug}.json"

        def work() -> int:
            asked = self.settings.depths_of(self.folder.name)
            if asked is not None or self.settings.encodes("verdict"):
                layers = count_layers(self.folder)
                taken = self._asked_depths(asked, layers)
                write_json(file, {"points": [], "taken": taken, "layers": layers})
                return 0
            backbone = self._load(None)
            layers = backbone.layers
            depths = candidate_depths(layers, self.settings.lora_layers)
            sample = sample_pairs(len(self.pairs), self.settings)
            kind: Encoder = "tree" if "probe" in self.settings.members else "joint"
            encoder = self._encoder(backbone, kind)
            forest = grow([encoder.encode(self.pairs[k]) for k in sample])
            store = PooledStore(backbone, depths, cache_bytes=self.settings.cache_bytes)
            title = f"{self.slug}: looking at depths"
            states = store.compute(forest, title=title, deadline=self.deadline)
            losses = probe_depths(
                states,
                forest,
                self.task,
                pairs=sample,
                columns=self.columns,
                ridge=DEPTH_RIDGE,
                head=self.tree_head if kind == "tree" else "joint",
                lengths=self.settings.answer_length and kind == "tree",
            )
            best = depths[int(np.argmin(losses))]
            points = [[d, round(x, 6)] for d, x in zip(depths, losses, strict=True)]
            write_json(file, {"points": points, "taken": [best], "layers": layers})
            return store.tokens_run

        self.run.run(f"depth-{self.slug}", work)
        found = json.loads(file.read_text(encoding="utf-8"))
        points = tuple((int(d), float(x)) for d, x in found["points"])
        taken = tuple(map(int, found.get("taken") or [found["exit"]]))  # an older run has one
        return DepthSearch(self.folder.name, points, taken, int(found["layers"]))

    def _asked_depths(self, asked: tuple[int, ...] | None, layers: int) -> list[int]:
        """The depths of the settings; all layers where a verdict is asked for.

        Raises:
            ConfigError: a verdict below the last layer.
        """
        if asked is None:
            return [layers]
        shown = ", ".join(map(str, asked))
        if self.settings.encodes("verdict") and asked != (layers,):
            raise ConfigError(
                f"depth = {shown}, but verdict members read the last layer of {self.folder.name}",
                fix=f"use --depth {layers}, or leave verdict and verdict-lora out of --members",
            )
        return list(asked)

    def _load(self, depth: int | None) -> Backbone:
        dtype = getattr(torch, self.dtype)
        return load_backbone(
            self.folder,
            depth=depth,
            dtype=dtype,
            device=self.device,
            int8_layers=self._int8_layers(depth),
            nf4=self.settings.dtype == "nf4",
        )

    def _int8_layers(self, depth: int | None) -> int:
        """All that are loaded, but those that get LoRA, which need gradients."""
        if self.settings.dtype != "int8":
            return 0
        if depth is None:
            return 1 << 30
        return depth - self.settings.lora_layers if self.settings.tuned else depth

    def _encoder(self, backbone: Backbone, kind: Encoder) -> PairEncoder:
        return pair_encoder_of(backbone, self.settings, kind)

    def _count(self, stage: str, store: PooledStore) -> None:
        if store.tokens_run:
            self.run.finish(stage, store.seconds, store.tokens_run)


def pair_encoder_of(backbone: Backbone, settings: FitSettings, kind: Encoder) -> PairEncoder:
    """The encoder that the settings ask for."""
    share = settings.prompt_share
    budget = TokenBudget(settings.max_tokens, (share, (1 - share) / 2, (1 - share) / 2))
    template = Template(backbone.tokenizer, settings.template)
    return PairEncoder(
        template,
        budget,
        encoder=kind,
        shots=settings.verdict_shots,
        max_positions=backbone.max_positions,
    )


def _cut(forest: Forest, max_tokens: int) -> Cut:
    return Cut(
        max_tokens=max_tokens,
        pairs=len(forest.left),
        pairs_cut=int((forest.cut.sum(1) > 0).sum()),
        tokens=forest.plain_tokens,
        tokens_run=forest.tokens,
        tokens_cut=int(forest.cut.sum()),
    )
