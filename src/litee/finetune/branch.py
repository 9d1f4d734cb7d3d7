"""LoRA branches: a few adapted layers over the frozen trunk, started at the probe's solution.

A branch is a PEFT adapter on the layers just below the exit depth and the head that reads them.
At step 0 its predictions are the probe's, so whatever it learns is measured against the probe;
when nothing is gained on held-out prompts it stays the probe, and says so. Knows nothing of
folds and ensembles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litee.config import FitSettings
from litee.encode.forest import Pack, pack_leaves
from litee.errors import ModelError
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.attention_pooling import repeated
from litee.finetune.batches import Batch, make_batches
from litee.finetune.heads import HeadName, PairHead, make_head
from litee.finetune.lengths import length_terms
from litee.finetune.loop import History, Loop, LoopSettings, Part, run_together
from litee.finetune.probe import Floats, Ints
from litee.finetune.states import TokenStore, pack_tokens
from litee.finetune.trunk import lay_out, pooled
from litee.rundir import atomic_path

Pooling = str

#: Which of (last, mean) a pooling name reads, in the order of the columns.
POOLINGS: dict[str, tuple[int, ...]] = {"last": (0,), "mean": (1,), "last+mean": (0, 1)}


@dataclass(frozen=True, slots=True)
class Examples:
    """What a branch learns from or is tested on.

    Attributes:
        pairs: numbers of the pairs in the forest.
        shares: (pairs, 3) vote shares.
        weights: (pairs,) weights.
    """

    pairs: Ints
    shares: Floats
    weights: Floats


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one branch learns from, and what stops it.

    Attributes:
        training: examples to learn from.
        validation: examples on other prompts, for the early stop.
        seed: of the order of batches and of the dropout.
    """

    training: Examples
    validation: Examples
    seed: int


class Branch:
    """One adapter with its head over a token store.

    Args:
        adapters: where the adapter lives.
        name: the adapter's name.
        head: what reads the pooled states at the exit depth.
        store: states before the adapted layers.
        pooling: last, mean or last+mean.
        query: (hidden,) of attention pooling, learnt with the adapter; None for the plain mean.
        lengths: whether the head reads the answers' lengths behind their states.
    """

    def __init__(
        self,
        adapters: Adapters,
        name: str,
        *,
        head: PairHead,
        store: TokenStore,
        pooling: Pooling,
        query: Tensor | None = None,
        lengths: bool = False,
    ) -> None:
        self.adapters, self.name, self.head, self.store = adapters, name, head, store
        terms = length_terms(store.forest.characters) if lengths else np.zeros((0, 0))
        self.lengths = torch.from_numpy(terms).float()
        self.columns = list(POOLINGS[pooling])
        self.query = query

    def read(self, rows: Tensor, pack: Pack) -> Tensor:
        """(leaves of a pack, 2, hidden) pooled states → (leaves, width), what the head reads."""
        flat = rows[:, self.columns].flatten(1)
        return torch.cat([flat, self.lengths[_order(pack)]], 1) if len(self.lengths) else flat

    def states(self, leaves: Sequence[int]) -> Tensor:
        """(all leaves of the forest, width) pooled states; rows not asked for are zero."""
        forest = self.store.forest
        rows = torch.zeros(len(forest.leaves), self.head.width)
        with torch.inference_mode():
            for pack in pack_leaves(forest, leaves, pack_tokens(self.store.trunk.device)):
                rows[_order(pack)] = answers([self], [pack])[0].cpu()
        return rows

    def log_probabilities(self, pairs: Ints) -> Tensor:
        """(pairs, 3) log probabilities of A, B, tie."""
        forest = self.store.forest
        left, right = forest.left[pairs], forest.right[pairs]
        states = self.states(np.unique(np.concatenate([left, right])).tolist())
        with torch.inference_mode():
            found: Tensor = self.head(states[left], states[right]).double()
        return found

    def loss(
        self, states: Tensor, batch: Batch, examples: Examples, smoothing: float
    ) -> tuple[Tensor, float]:
        """Sum of weighted cross-entropies of a batch, and the sum of its weights.

        Args:
            states: (leaves of the batch's pack, width) pooled states, on the CPU.
            batch: the pairs.
            examples: their votes.
            smoothing: share of the target that is spread evenly.
        """
        order = {leaf: row for row, leaf in enumerate(_order(batch.pack))}
        forest = self.store.forest
        pairs = examples.pairs[batch.rows]
        left = states[[order[int(leaf)] for leaf in forest.left[pairs]]]
        right = states[[order[int(leaf)] for leaf in forest.right[pairs]]]
        target = torch.from_numpy(examples.shares[batch.rows]).float()
        target = target * (1 - smoothing) + smoothing / 3
        weight = torch.from_numpy(examples.weights[batch.rows]).float()
        losses = -(target * self.head(left, right)).sum(-1)
        return (losses * weight).sum(), float(weight.sum())


def answers(
    branches: Sequence[Branch], packs: Sequence[Pack], seeds: Sequence[int] | None = None
) -> list[Tensor]:
    """Pooled states after the adapted layers, every branch on its own pack, all in one pass.

    Args:
        branches: over the same store.
        packs: one per branch.
        seeds: of the branches' dropout; none when None.

    Returns:
        Per branch (leaves of its pack, width), on the CPU.
    """
    store, adapters = branches[0].store, branches[0].adapters
    pack = Pack(sum((p.groups for p in packs), ()), sum(p.tokens for p in packs))
    trunk = adapters.trunk
    trees = lay_out(store.forest, pack, trunk.device)
    drawn: Sequence[int | None] = seeds or [None] * len(branches)
    segments = [
        Segment(branch.name, own.tokens, seed)
        for branch, own, seed in zip(branches, packs, drawn, strict=True)
    ]
    states = store.states(pack)
    with adapters.together(segments):
        found = trunk.run(trees, start=adapters.start, states=states, depths=[trunk.depth])
    counts = [len(_order(own)) for own in packs]
    queries = repeated([branch.query for branch in branches], counts)
    rows = pooled(found[trunk.depth], trees, queries).cpu()
    return [
        branch.read(part, own)
        for branch, part, own in zip(branches, torch.split(rows, counts), packs, strict=True)
    ]


def _order(pack: Pack) -> list[int]:
    """Leaf numbers as they lie in a pack."""
    return [leaf for _, held in pack.groups for leaf in held]


def train_together(
    branches: Sequence[Branch],
    lessons: Sequence[Lesson],
    *,
    settings: FitSettings,
    checkpoint: Path,
    title: str,
    out_of_time: Callable[[], bool] = lambda: False,
) -> list[History]:
    """Train branches side by side, in place, and leave their best states in.

    Each ends as it would alone: what it learns from, its seed and its stop are its own.

    Args:
        branches: with fresh adapters, each with its probe's head.
        lessons: one per branch.
        settings: rates and sizes.
        checkpoint: file to resume from.
        title: of the progress bar.
        out_of_time: asked before each step; when true, all stop with their best states.
    """
    loops = [
        _loop(branch, lesson, settings=settings, checkpoint=checkpoint)
        for branch, lesson in zip(branches, lessons, strict=True)
    ]

    def losses(parts: Sequence[Part[Batch]]) -> list[tuple[Tensor, float]]:
        own = [branches[part.loop] for part in parts]
        packs = [part.batch.pack for part in parts]
        found = answers(own, packs, [part.seed for part in parts])
        return [
            branch.loss(states, part.batch, lessons[part.loop].training, settings.label_smoothing)
            for branch, states, part in zip(own, found, parts, strict=True)
        ]

    return run_together(loops, losses, checkpoint=checkpoint, title=title, out_of_time=out_of_time)


def _loop(
    branch: Branch, lesson: Lesson, *, settings: FitSettings, checkpoint: Path
) -> Loop[Batch]:
    training, validation, seed = lesson.training, lesson.validation, lesson.seed
    parameters = branch.adapters.parameters(branch.name)
    if branch.query is not None:
        parameters["query"] = branch.query
    if settings.head_learning_rate > 0:
        parameters |= {f"head.{n}": p for n, p in branch.head.named_parameters()}
    for parameter in branch.head.parameters():
        parameter.requires_grad_(settings.head_learning_rate > 0)

    @lru_cache(maxsize=1)
    def batches(epoch: int) -> list[Batch]:
        rng = np.random.default_rng([seed, epoch])
        return make_batches(branch.store.forest, training.pairs, settings.batch_tokens, rng)

    def validate() -> float:
        log_p = branch.log_probabilities(validation.pairs).numpy()
        losses = -(validation.shares * log_p).sum(1)
        return float(np.average(losses, weights=validation.weights))

    return Loop(
        parameters,
        batches=batches,
        validate=validate,
        settings=LoopSettings.of(settings, seed=seed),
        checkpoint=checkpoint,
        rates={n: settings.head_learning_rate for n in parameters if n.startswith("head.")},
    )


def save_head(head: PairHead, file: Path) -> None:
    """Write a head's tensors as safetensors, with its name in the metadata."""
    tensors = {k: v.contiguous() for k, v in sorted(head.state_dict().items())}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata={"head": head.name})


def load_head(name: HeadName, file: Path) -> PairHead:
    """Read a head.

    Raises:
        ModelError: the file is damaged or holds another head.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            saved = (opened.metadata() or {}).get("head", name)
        if saved != name:
            raise ValueError(f"it holds a {saved} head, {name} was expected")
        tensors = load_file(file)
        head = make_head(name, int(tensors["mean"].shape[0]))
        head.load_state_dict(tensors)
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot read the head: {error}", place=str(file), fix="fit the judge again"
        ) from error
    return head.eval()
