"""LoRA branches: a few adapted layers over the frozen trunk, started at the probe's solution.

A branch is a PEFT adapter on the layers just below the exit depth and the head that reads them.
At step 0 its predictions are the probe's, so whatever it learns is measured against the probe;
when nothing is gained on held-out prompts it stays the probe, and says so. Knows nothing of
folds and ensembles.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from litee.config import FitSettings
from litee.encode.forest import Forest, Pack, pack_leaves
from litee.errors import ModelError
from litee.finetune.heads import HeadName, PairHead, make_head
from litee.finetune.loop import History, Loop, LoopSettings
from litee.finetune.probe import Floats, Ints
from litee.finetune.states import PACK_TOKENS, TokenStore
from litee.finetune.trunk import Trunk, lay_out, pooled
from litee.rundir import atomic_path, write_json

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
class _Batch:
    pack: Pack
    rows: Ints


class Adapters:
    """PEFT adapters on the layers start … exit - 1 of a trunk; any number side by side.

    Args:
        trunk: whose top layers are adapted; its depth is the exit depth.
        start: number of frozen layers below.
        settings: rank, alpha, dropout.
        backbone: the backbone's name, for the adapter's config.
    """

    def __init__(self, trunk: Trunk, *, start: int, settings: FitSettings, backbone: str) -> None:
        self.trunk, self.start, self.settings = trunk, start, settings
        self.backbone = backbone
        self.model: PeftModel | None = None
        layer = trunk.layers[start]
        linear = (name for name, part in layer.named_modules() if isinstance(part, nn.Linear))
        self._linear = sorted({name.rsplit(".", 1)[-1] for name in linear})

    def add(self, name: str, *, seed: int) -> dict[str, Tensor]:
        """A fresh adapter: A random from `seed`, B zero. Returns its trainable tensors."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if self.model is None:
                with _known_warning():
                    model = get_peft_model(self.trunk.decoder, self._config(), adapter_name=name)
                self.model = model
            else:
                self.model.add_adapter(name, self._config())
        return self.use(name)

    def load(self, name: str, folder: Path) -> None:
        """Add an adapter from a PEFT folder; only safetensors are read.

        Raises:
            ModelError: the folder has no safetensors, or they do not fit.
        """
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            if not (folder / file).is_file():  # PEFT would look on the hub, or for a pickle
                raise ModelError(f"{file} is missing", place=str(folder), fix="fit the judge again")
        try:
            if self.model is None:
                with _known_warning():
                    self.model = PeftModel.from_pretrained(
                        self.trunk.decoder, str(folder), adapter_name=name, low_cpu_mem_usage=False
                    )
            else:
                self.model.load_adapter(str(folder), adapter_name=name)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            problem = f"cannot read the adapter: {str(error).partition(chr(10))[0]}"
            raise ModelError(problem, place=str(folder), fix="fit the judge again") from error
        self.model.eval()

    def use(self, name: str) -> dict[str, Tensor]:
        """Make one adapter the active one. Returns its tensors by full name."""
        assert self.model is not None
        self.model.set_adapter(name)
        return {n: p for n, p in self.model.named_parameters() if f".{name}." in n}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the block no adapter is active: the frozen model."""
        assert self.model is not None
        with self.model.disable_adapter():
            yield

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        assert self.model is not None
        with _known_warning():
            self.model.delete_adapter(name)

    def remove(self) -> None:
        """Take all adapters off the trunk, which is then as it was before the first one."""
        if self.model is not None:
            self.model.unload()
            self.model = None

    def save(self, name: str, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, as PEFT does."""
        assert self.model is not None
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(
            self.model, adapter_name=name, save_embedding_layers=False
        )
        with atomic_path(folder / "adapter_model.safetensors") as temporary:
            save_file({k: v.contiguous() for k, v in sorted(state.items())}, temporary)
        # written here and not by PEFT, which lists its sets in the order of this process's hashes
        config = {
            **self.model.peft_config[name].to_dict(),
            "inference_mode": True,
            "base_model_name_or_path": self.backbone,
        }
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in sorted(config.items())}
        write_json(folder / "adapter_config.json", plain)

    def training(self, active: bool) -> None:
        """Switch dropout on or off."""
        assert self.model is not None
        self.model.train(active)
        for layer in self.trunk.layers[: self.start]:  # their states are fixed, kept or not
            layer.eval()

    def _config(self) -> LoraConfig:
        return LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=self.settings.lora_r,
            lora_alpha=self.settings.lora_alpha,
            lora_dropout=self.settings.lora_dropout,
            target_modules=self._linear,
            layers_to_transform=list(range(self.start, self.trunk.depth)),
            layers_pattern="layers",
        )


@contextmanager
def _known_warning() -> Iterator[None]:
    """Hide that PEFT reads an attribute which transformers has renamed; users cannot mend it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        yield


class Branch:
    """One adapter with its head over a token store.

    Args:
        adapters: where the adapter lives.
        name: the adapter's name.
        head: what reads the pooled states at the exit depth.
        store: states before the adapted layers.
        pooling: last, mean or last+mean.
    """

    def __init__(
        self, adapters: Adapters, name: str, *, head: PairHead, store: TokenStore, pooling: Pooling
    ) -> None:
        self.adapters, self.name, self.head, self.store = adapters, name, head, store
        self.columns = list(POOLINGS[pooling])

    def answers(self, pack: Pack) -> Tensor:
        """(leaves of the pack, width) pooled states after the adapted layers."""
        trees = lay_out(self.store.forest, pack, self.adapters.trunk.device)
        depth = self.adapters.trunk.depth
        states = self.store.states(pack)
        found = self.adapters.trunk.run(
            trees, start=self.adapters.start, states=states, depths=[depth]
        )[depth]
        return pooled(found, trees)[:, self.columns].flatten(1)

    def states(self, leaves: Sequence[int]) -> Tensor:
        """(all leaves of the forest, width) pooled states; rows not asked for are zero."""
        self.adapters.use(self.name)
        self.adapters.training(False)
        forest = self.store.forest
        rows = torch.zeros(len(forest.leaves), self.head.width)
        with torch.inference_mode():
            for pack in pack_leaves(forest, leaves, PACK_TOKENS):
                order = [leaf for _, held in pack.groups for leaf in held]
                rows[order] = self.answers(pack).cpu()
        return rows

    def log_probabilities(self, pairs: Ints) -> Tensor:
        """(pairs, 3) log probabilities of A, B, tie."""
        forest = self.store.forest
        left, right = forest.left[pairs], forest.right[pairs]
        states = self.states(np.unique(np.concatenate([left, right])).tolist())
        with torch.inference_mode():
            found: Tensor = self.head(states[left], states[right]).double()
        return found

    def loss(self, batch: _Batch, examples: Examples, smoothing: float) -> tuple[Tensor, float]:
        """Sum of weighted cross-entropies of a batch, and the sum of its weights."""
        order = {
            leaf: row
            for row, leaf in enumerate(leaf for _, held in batch.pack.groups for leaf in held)
        }
        states = self.answers(batch.pack)
        forest = self.store.forest
        pairs = examples.pairs[batch.rows]
        left = states[[order[int(leaf)] for leaf in forest.left[pairs]]]
        right = states[[order[int(leaf)] for leaf in forest.right[pairs]]]
        target = torch.from_numpy(examples.shares[batch.rows]).float()
        target = target * (1 - smoothing) + smoothing / 3
        weight = torch.from_numpy(examples.weights[batch.rows]).float()
        losses = -(target * self.head(left, right)).sum(-1)
        return (losses * weight).sum(), float(weight.sum())


def train_branch(
    branch: Branch,
    training: Examples,
    validation: Examples,
    *,
    settings: FitSettings,
    seed: int,
    checkpoint: Path,
    title: str,
) -> History:
    """Train a branch in place and leave its best state in.

    Args:
        branch: with a fresh adapter and the probe's head.
        training: examples to learn from.
        validation: examples on other prompts, for the early stop.
        settings: rates and sizes.
        seed: of order and dropout.
        checkpoint: file to resume from.
        title: of the progress bar.
    """
    parameters = branch.adapters.use(branch.name)
    if settings.head_learning_rate > 0:
        parameters |= {f"head.{n}": p for n, p in branch.head.named_parameters()}
    for parameter in branch.head.parameters():
        parameter.requires_grad_(settings.head_learning_rate > 0)

    @lru_cache(maxsize=1)
    def batches(epoch: int) -> list[_Batch]:
        rng = np.random.default_rng([seed, epoch])
        return make_batches(branch.store.forest, training.pairs, settings.batch_tokens, rng)

    def loss(batch: _Batch) -> tuple[Tensor, float]:
        branch.adapters.training(True)
        return branch.loss(batch, training, settings.label_smoothing)

    def validate() -> float:
        log_p = branch.log_probabilities(validation.pairs).numpy()
        losses = -(validation.shares * log_p).sum(1)
        return float(np.average(losses, weights=validation.weights))

    loop = Loop(
        parameters,
        batches=batches,
        loss=loss,
        validate=validate,
        settings=LoopSettings.of(settings, seed=seed),
        checkpoint=checkpoint,
        rates={n: settings.head_learning_rate for n in parameters if n.startswith("head.")},
    )
    return loop.run(title=title)


def make_batches(
    forest: Forest, pairs: Ints, max_tokens: int, rng: np.random.Generator
) -> list[_Batch]:
    """Batches of pairs, prompt by prompt in random order, so that answers are shared.

    Args:
        forest: the texts.
        pairs: numbers of the pairs to use; a batch's rows index this array.
        max_tokens: branch and prefix tokens per batch, exceeded only by a single pair.
        rng: order of prompts and of pairs within a prompt.
    """
    of_prefix: dict[int, list[int]] = {}
    for row, pair in enumerate(pairs):
        of_prefix.setdefault(forest.leaves[int(forest.left[pair])][0], []).append(row)
    prefixes = list(of_prefix)
    rng.shuffle(prefixes)
    batches: list[_Batch] = []
    groups: dict[int, dict[int, None]] = {}
    rows: list[int] = []
    size = 0
    for prefix in prefixes:
        own = of_prefix[prefix]
        rng.shuffle(own)
        for row in own:
            pair = pairs[row]
            both = [int(forest.left[pair]), int(forest.right[pair])]
            held = groups.get(prefix)
            fresh = {leaf for leaf in both if held is None or leaf not in held}
            needed = sum(len(forest.leaves[leaf][1]) for leaf in fresh)
            needed += 0 if held is not None else len(forest.prefixes[prefix])
            if rows and size + needed > max_tokens:
                batches.append(_close(forest, groups, rows))
                groups, rows, size = {}, [], 0
                needed = sum(len(forest.leaves[leaf][1]) for leaf in set(both))
                needed += len(forest.prefixes[prefix])
            groups.setdefault(prefix, {}).update(dict.fromkeys(both))
            rows.append(row)
            size += needed
    if rows:
        batches.append(_close(forest, groups, rows))
    order = rng.permutation(len(batches))
    return [batches[k] for k in order]


def _close(forest: Forest, groups: dict[int, dict[int, None]], rows: list[int]) -> _Batch:
    packed = tuple((prefix, tuple(leaves)) for prefix, leaves in groups.items())
    tokens = sum(
        len(forest.prefixes[prefix]) + sum(len(forest.leaves[leaf][1]) for leaf in leaves)
        for prefix, leaves in packed
    )
    return _Batch(Pack(packed, tokens), np.array(rows, dtype=np.int64))


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
