"""The Judge: loads an artifact, predicts pairs in both orders at once, gives rewards.

Every backbone runs once per chunk of pairs, whatever the number of members on it; prompts and
answers that occur in several pairs run once. Knows nothing of votes and training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from litee.config import FitSettings
from litee.encode.budget import TokenBudget
from litee.encode.forest import Encoder, Forest, PairEncoder, grow, pack_leaves
from litee.encode.templates import Template
from litee.errors import ModelError
from litee.finetune.backbones import Backbone, find_backbone, load_backbone
from litee.finetune.branch import POOLINGS, Adapters, load_head
from litee.finetune.heads import PairHead, RewardHead
from litee.finetune.probe import PairStates, predict_head
from litee.finetune.states import PACK_TOKENS, PooledStore
from litee.finetune.statistics import statistics_states
from litee.finetune.trunk import PackedTrees, lay_out, pooled
from litee.predict.artifact import BackboneEntry, JudgeFile, MemberEntry, load_judge_file
from litee.predict.calibration import Floats
from litee.records import Pair, Prediction

#: Pairs that are encoded and run together; bounds the memory of a prediction.
CHUNK_PAIRS = 2048


@dataclass(frozen=True, slots=True)
class MemberOutput:
    """What one member says about a chunk of pairs.

    Attributes:
        probabilities: (n, 3).
        rewards: (n, 2) rewards of A and B, or None for a joint member.
        cut: (n, 3) tokens cut from prompt, A and B.
    """

    probabilities: Floats
    rewards: Floats | None
    cut: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Loaded:
    entry: MemberEntry
    head: PairHead


class BackboneRunner:
    """Runs all members of one backbone over chunks of pairs."""

    def __init__(self, entry: BackboneEntry, members: Sequence[_Loaded], folder: Path) -> None:
        self.entry, self.members = entry, members
        self.backbone = _load(entry)
        self.encoders: dict[Encoder, PairEncoder] = {}
        for member in members:
            kind = member.entry.encoder or "tree"
            if kind not in self.encoders:
                self.encoders[kind] = pair_encoder(self.backbone, entry, kind)
        self.adapters = self._adapters(folder)

    def _adapters(self, folder: Path) -> Adapters | None:
        starts = [m.entry.start_depth for m in self.members if m.entry.start_depth is not None]
        if not starts:
            return None
        adapters = Adapters(
            self.backbone.trunk, start=min(starts), settings=FitSettings(), backbone=self.entry.name
        )
        for member in self.members:
            if member.entry.kind == "lora":
                adapters.load(_adapter(member.entry), folder / "members" / member.entry.name)
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
            frozen = keep_states and self.adapters is None
            states = self._kept(forest, members) if frozen else self._states(forest, members)
            for member in members:
                data = PairStates(states[member.entry.name], forest.left, forest.right)
                outputs[member.entry.name] = head_output(member.head, data, forest.cut)
        return outputs

    def _kept(
        self, forest: Forest, members: Sequence[_Loaded]
    ) -> dict[str, npt.NDArray[np.float32]]:
        store = PooledStore(self.backbone, [self.entry.exit_depth])
        states = store.compute(forest, title=f"answers through {self.entry.name}")[:, 0]
        return {
            m.entry.name: states[:, list(POOLINGS[m.entry.pooling])].reshape(len(states), -1)
            for m in members
        }

    def _states(
        self, forest: Forest, members: Sequence[_Loaded]
    ) -> dict[str, npt.NDArray[np.float32]]:
        found = {
            m.entry.name: np.zeros((len(forest.leaves), m.head.width), dtype=np.float32)
            for m in members
        }
        with torch.inference_mode():
            for pack in pack_leaves(forest, range(len(forest.leaves)), PACK_TOKENS):
                trees = lay_out(forest, pack, self.backbone.trunk.device)
                for member, states in self._passes(trees, members):
                    columns = list(POOLINGS[member.entry.pooling])
                    value = pooled(states, trees)[:, columns].flatten(1)
                    found[member.entry.name][list(trees.leaves)] = value.cpu().numpy()
        return found

    def _passes(
        self, trees: PackedTrees, members: Sequence[_Loaded]
    ) -> Iterator[tuple[_Loaded, torch.Tensor]]:
        """States at the exit depth for each member: one frozen pass, one short pass per branch."""
        trunk, exit_depth = self.backbone.trunk, self.entry.exit_depth
        probes = [m for m in members if m.entry.kind == "probe"]
        branches = [m for m in members if m.entry.kind == "lora"]
        start, below = 0, None
        if self.adapters is not None:
            start = self.adapters.start
            below = trunk.run(trees, depths=[start])[start]
        if probes:
            with self.adapters.off() if self.adapters else nullcontext():
                top = trunk.run(trees, start=start, states=below, depths=[exit_depth])[exit_depth]
            for member in probes:
                yield member, top
        for member in branches:
            assert self.adapters is not None
            self.adapters.use(_adapter(member.entry))
            states = trunk.run(trees, start=start, states=below, depths=[exit_depth])
            yield member, states[exit_depth]


class Judge:
    """A fitted judge.

    Args:
        folder: where it lies.
        file: its description.

    Use `Judge.from_pretrained`.
    """

    def __init__(self, folder: Path, file: JudgeFile) -> None:
        self.folder, self.file = folder, file
        loaded = [_Loaded(m, _head(m, folder)) for m in file.members]
        self._statistics = [m for m in loaded if m.entry.kind == "statistics"]
        self._runners = [
            BackboneRunner(b, [m for m in loaded if m.entry.backbone == b.name], folder)
            for b in file.backbones
        ]

    @classmethod
    def from_pretrained(cls, path_or_hub: str | Path) -> Judge:
        """Load a judge from a folder or from the hub (`owner/name`).

        Raises:
            ModelError: not found, damaged, or made with other weights of its backbone.
        """
        folder = Path(path_or_hub)
        if not folder.is_dir() and str(path_or_hub).count("/") == 1 and not folder.is_absolute():
            folder = _download(str(path_or_hub))
        return cls(folder, load_judge_file(folder))

    def predict(self, pairs: Iterable[Pair]) -> tuple[Prediction, ...]:
        """Calibrated probabilities and rewards, in the order of the pairs.

        Exchanging the answers of a pair exchanges P(A) and P(B).
        """
        return tuple(self.stream(pairs))

    def stream(self, pairs: Iterable[Pair]) -> Iterator[Prediction]:
        """Like `predict`, chunk by chunk: memory does not grow with the number of pairs."""
        rest = iter(pairs)
        while chunk := list(islice(rest, CHUNK_PAIRS)):
            yield from self._predict(chunk)

    def member_outputs(
        self, pairs: Sequence[Pair], *, keep_states: bool = False
    ) -> dict[str, MemberOutput]:
        """What every member says by itself, by name, in the order of `judge.json`.

        Pairs of the same prompt are run together, wherever they stand, so that texts are shared.
        With `keep_states` a second call on the same texts runs no backbone.
        """
        order = sorted(range(len(pairs)), key=lambda k: pairs[k].prompt)
        outputs: dict[str, MemberOutput] = {}
        for start in range(0, len(pairs), CHUNK_PAIRS):
            chunk = [pairs[k] for k in order[start : start + CHUNK_PAIRS]]
            part = self._outputs(chunk, keep_states=keep_states)
            for name, output in part.items():
                outputs[name] = _append(outputs.get(name), output)
        back = np.argsort(order)
        return {m.name: _reorder(outputs[m.name], back) for m in self.file.members}

    def reward(self, prompt: str | Sequence[str], answer: str | Sequence[str]) -> float:
        """Scalar reward of one answer, in nats of log odds; only differences count.

        It is the weighted sum of the members' rewards: in a logarithmic pool their difference is
        log P(A) − log P(B).

        Raises:
            ModelError: no member has a reward (a judge of joint members only).
        """
        turns = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        answers = (answer,) if isinstance(answer, str) else tuple(answer)
        found = self.predict([Pair("reward", turns, answers, answers)])[0].reward_a
        if found is None:
            raise ModelError(
                "this judge has joint members only, which have no reward",
                place=str(self.folder),
                fix="fit one with probe or lora among --members",
            )
        return found

    def _outputs(
        self, pairs: Sequence[Pair], *, keep_states: bool = False
    ) -> dict[str, MemberOutput]:
        outputs: dict[str, MemberOutput] = {}
        if self._statistics:
            data = statistics_states(pairs)
            for member in self._statistics:
                cut = np.zeros((len(pairs), 3), dtype=np.int64)
                outputs[member.entry.name] = head_output(member.head, data, cut)
        for runner in self._runners:
            outputs |= runner.run(pairs, keep_states=keep_states)
        return outputs

    def _predict(self, pairs: Sequence[Pair]) -> list[Prediction]:
        outputs = self._outputs(pairs)
        names = self.file.ensemble.members
        stacked = np.stack([outputs[name].probabilities for name in names])
        probabilities = self.file.ensemble.apply(stacked)
        rewards = self._rewards(outputs)
        cut = np.max([outputs[name].cut for name in names], axis=0)
        return [
            Prediction(
                pair.id,
                (float(p[0]), float(p[1]), float(p[2])),
                None if rewards is None else float(rewards[k, 0]),
                None if rewards is None else float(rewards[k, 1]),
                (int(cut[k, 0]), int(cut[k, 1]), int(cut[k, 2])),
            )
            for k, (pair, p) in enumerate(zip(pairs, probabilities, strict=True))
        ]

    def _rewards(self, outputs: dict[str, MemberOutput]) -> Floats | None:
        ensemble = self.file.ensemble
        total: Floats | None = None
        for name, weight in zip(ensemble.members, ensemble.weights, strict=True):
            rewards = outputs[name].rewards
            if rewards is not None and weight > 0:
                part = weight * ensemble.calibration.scale * rewards
                total = part if total is None else total + part
        return total


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
    return PairEncoder(template, budget, encoder=kind, max_positions=backbone.max_positions)


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


def _append(old: MemberOutput | None, new: MemberOutput) -> MemberOutput:
    if old is None:
        return new
    rewards = None
    if old.rewards is not None and new.rewards is not None:
        rewards = np.concatenate([old.rewards, new.rewards])
    return MemberOutput(
        np.concatenate([old.probabilities, new.probabilities]),
        rewards,
        np.concatenate([old.cut, new.cut]),
    )


def _reorder(output: MemberOutput, order: npt.NDArray[np.int64]) -> MemberOutput:
    rewards = None if output.rewards is None else output.rewards[order]
    return MemberOutput(output.probabilities[order], rewards, output.cut[order])


def _head(entry: MemberEntry, folder: Path) -> PairHead:
    return load_head(entry.head, folder / "members" / entry.name / "head.safetensors")


def _adapter(entry: MemberEntry) -> str:
    """The member's name for PEFT, which takes no dots."""
    return entry.name.replace(".", "_dot_")


def _load(entry: BackboneEntry) -> Backbone:
    found = find_backbone(entry.name)
    if found.sha256 != entry.sha256:
        raise ModelError(
            f"its weights have sha256 {found.sha256[:12]}…, the judge was fitted on "
            f"{entry.sha256[:12]}…",
            place=entry.name,
            fix="get the same revision of the backbone, or fit the judge again",
        )
    return load_backbone(found, depth=entry.exit_depth, dtype=getattr(torch, entry.dtype))


def _download(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"cannot get the judge {name!r} from the hub ({type(error).__name__})",
            fix="name a folder made by `litee fit`; hub names need a network once",
        ) from error
