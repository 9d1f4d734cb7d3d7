"""LoRA adapters side by side on the upper layers of a trunk, many of them in one pass.

PEFT owns the adapters: their configuration, initialisation and files. Which tokens of a pass go
through which adapter is decided here, so that branches with their own seeds, ranks and depths
train and predict together. Knows nothing of heads, votes and training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from litee.config import FitSettings
from litee.errors import ModelError
from litee.finetune.trunk import Trunk
from litee.rundir import atomic_path, write_json


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of a pass that go through one adapter.

    Attributes:
        adapter: its name.
        tokens: how many.
        seed: of the dropout in front of its matrices; None for none.
    """

    adapter: str
    tokens: int
    seed: int | None = None


class _Plan:
    """The segments of the pass that is running, with a generator for each that draws."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments = segments
        self.device = device
        self.generators = [
            None if s.seed is None else torch.Generator(device).manual_seed(s.seed)
            for s in segments
        ]
        #: all of one length, so that adapters can be multiplied as one batch
        self.even = len({s.tokens for s in segments}) == 1

    def again(self) -> _Plan:
        """The same from this moment on: draws what this one is about to draw."""
        twin = _Plan(self.segments, self.device)
        for own, other in zip(twin.generators, self.generators, strict=True):
            if own is not None and other is not None:
                own.set_state(other.get_state())
        return twin


class Adapters:
    """PEFT adapters on the layers start … exit - 1 of a trunk; any number side by side.

    Outside of `together` the adapters are off.

    Args:
        trunk: whose top layers are adapted; its depth is the exit depth.
        start: number of frozen layers below all adapters.
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
        self._plan: _Plan | None = None
        if settings.gradient_checkpointing:
            for adapted in trunk.layers[start:]:
                adapted.forward = partial(self._recomputed, adapted.forward)

    def add(
        self, name: str, *, seed: int, rank: int | None = None, start: int | None = None
    ) -> dict[str, Tensor]:
        """A fresh adapter: A random from `seed`, B zero.

        Args:
            name: of the adapter, without dots.
            seed: of A.
            rank: the settings' when None; the scale alpha / rank stays the settings'.
            start: number of layers that it leaves frozen, not below the common start.

        Returns:
            Its trainable tensors by full name.
        """
        config = self._config(rank, start)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if self.model is None:
                with _known_warning():
                    self.model = get_peft_model(self.trunk.decoder, config, adapter_name=name)
            else:
                self.model.add_adapter(name, config)
        return self._ready(name)

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
                        self.trunk.decoder,
                        str(folder),
                        adapter_name=name,
                        low_cpu_mem_usage=False,
                        torch_device=str(self.trunk.device),
                    )
            else:
                self.model.load_adapter(
                    str(folder), adapter_name=name, torch_device=str(self.trunk.device)
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            problem = f"cannot read the adapter: {str(error).partition(chr(10))[0]}"
            raise ModelError(problem, place=str(folder), fix="fit the judge again") from error
        self._ready(name)

    @contextmanager
    def together(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Within the block, the tokens of a pass go through the adapters of their segments."""
        with self._following(_Plan(segments, self.trunk.device)):
            yield

    @contextmanager
    def _following(self, plan: _Plan) -> Iterator[None]:
        before, self._plan = self._plan, plan
        try:
            yield
        finally:
            self._plan = before

    def parameters(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter by full name."""
        assert self.model is not None
        return {n: p for n, p in self.model.named_parameters() if f".{name}." in n}

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
        for layer in self.trunk.layers[self.start :]:
            layer.__dict__.pop("forward", None)

    def average(self, name: str, parts: Sequence[str]) -> None:
        """Add an adapter that changes every weight by the mean of what others change it by.

        Exact: their matrices stand side by side, so its rank is the sum of theirs (a uniform soup,
        Wortsman et al., 2022, arXiv 2203.05482, in which only adapters differ).
        """
        assert self.model is not None
        self.model.add_weighted_adapter(
            list(parts), [1 / len(parts)] * len(parts), name, combination_type="cat"
        )
        self._ready(name)

    def save(self, name: str, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors, as PEFT does."""
        assert self.model is not None
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(
            self.model, adapter_name=name, save_embedding_layers=False
        )
        tensors = {k: v.cpu().contiguous() for k, v in sorted(state.items())}
        with atomic_path(folder / "adapter_model.safetensors") as temporary:
            save_file(tensors, temporary)
        # written here and not by PEFT, which lists its sets in the order of this process's hashes
        config = {
            **self.model.peft_config[name].to_dict(),
            "inference_mode": True,
            "base_model_name_or_path": self.backbone,
        }
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in sorted(config.items())}
        write_json(folder / "adapter_config.json", plain)

    def _ready(self, name: str) -> dict[str, Tensor]:
        """Route the layers through `_forward`, and let the adapter's tensors be trained."""
        assert self.model is not None
        self.model.eval()
        for layer in self.model.modules():
            if isinstance(layer, LoraLayer) and isinstance(layer, nn.Module):
                layer.forward = partial(self._forward, layer)
        found = self.parameters(name)
        for parameter in found.values():
            parameter.requires_grad_(True)
        return found

    def _recomputed(
        self,
        forward: Callable[..., Tensor],
        *given: Any,  # noqa: ANN401
        **named: Any,  # noqa: ANN401
    ) -> Tensor:
        """An adapted layer of which only the input is kept (arXiv 1604.06174, section 4).

        What is inside is computed again when gradients are asked for, after the pass has ended,
        with the segments and the dropout that it had.
        """
        plan = self._plan
        if plan is None or not torch.is_grad_enabled():
            return forward(*given, **named)
        later = plan.again()
        found: Tensor = checkpoint(
            forward,
            *given,
            use_reentrant=False,
            preserve_rng_state=False,  # what is drawn comes from the plan's own generators
            context_fn=lambda: (nullcontext(), self._following(later)),
            **named,
        )
        return found

    def _forward(self, layer: LoraLayer, x: Tensor) -> Tensor:
        """W x for all tokens, and the adapter's B A x · alpha / r for each segment's own.

        Args:
            layer: PEFT's layer.
            x: (1, tokens, in).
        """
        result: Tensor = layer.base_layer(x)
        plan = self._plan
        if plan is None:
            return result
        names = [s.adapter for s in plan.segments]
        if x.is_cuda and plan.even and len({layer.r.get(name) for name in names}) == 1:
            return result + _batched(layer, x, plan, result.shape[-1])
        return result + _one_by_one(layer, x, plan, result.shape[-1])

    def _config(self, rank: int | None, start: int | None) -> LoraConfig:
        first = self.start if start is None else start
        if not self.start <= first < self.trunk.depth:
            raise ValueError(f"start {first} is not in {self.start} … {self.trunk.depth - 1}")
        r = rank or self.settings.lora_r
        return LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=r,
            lora_alpha=self.settings.lora_alpha * r // self.settings.lora_r,
            lora_dropout=self.settings.lora_dropout,
            target_modules=self._linear,
            layers_to_transform=list(range(first, self.trunk.depth)),
            layers_pattern="layers",
        )


def _one_by_one(layer: LoraLayer, x: Tensor, plan: _Plan, width: int) -> Tensor:
    """(1, tokens, width) of every segment by its adapter, one after the other."""
    parts = []
    sizes = [s.tokens for s in plan.segments]
    beyond = x.shape[1] - sum(sizes)  # tokens that fill the pass up
    inputs = torch.split(x, [*sizes, beyond], dim=1)
    for segment, generator, part in zip(plan.segments, plan.generators, inputs[:-1], strict=True):
        if segment.adapter not in layer.lora_A:  # this adapter starts further up
            parts.append(part.new_zeros(*part.shape[:-1], width))
            continue
        down, up = _matrices(layer, segment.adapter)
        kept, factor = _dropped(part, layer.lora_dropout[segment.adapter], generator)
        parts.append((kept @ down.to(x.dtype).T) @ (up * factor).to(x.dtype).T)
    if beyond:
        parts.append(x.new_zeros(1, beyond, width))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _batched(layer: LoraLayer, x: Tensor, plan: _Plan, width: int) -> Tensor:
    """The same in two batched products; segments of one length, adapters of one rank."""
    names = [s.adapter for s in plan.segments]
    if names[0] not in layer.lora_A:
        return x.new_zeros(*x.shape[:-1], width)
    parts = []
    for name, generator, part in zip(names, plan.generators, x.chunk(len(names), 1), strict=True):
        kept, factor = _dropped(part, layer.lora_dropout[name], generator)
        parts.append(kept * factor)
    matrices = [_matrices(layer, name) for name in names]
    down = torch.stack([a for a, _ in matrices]).to(x.dtype)
    up = torch.stack([b for _, b in matrices]).to(x.dtype)
    low = torch.bmm(torch.cat(parts), down.mT)
    return torch.bmm(low, up.mT).flatten(0, 1)[None]


def _matrices(layer: LoraLayer, name: str) -> tuple[Tensor, Tensor]:
    """A, (r, in), and B · alpha / r, (out, r), of an adapter."""
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    return a, b * layer.scaling[name]


def _dropped(
    x: Tensor, dropout: nn.Module, generator: torch.Generator | None
) -> tuple[Tensor, float]:
    """Inputs with some set to zero, and the factor that makes up for it.

    A number is zeroed when 16 random bits are below p · 2¹⁶: four decisions per draw, ten times
    as fast on a CPU as one draw each.
    """
    p = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
    if generator is None or p == 0:
        return x, 1.0
    whole = (-(2**63), 2**63 - 1)
    draws = torch.randint(*whole, (-(-x.numel() // 4),), generator=generator, device=x.device)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return x * (bits >= round(p * 2**16) - 2**15), 1 / (1 - p)


@contextmanager
def _known_warning() -> Iterator[None]:
    """Hide that PEFT reads an attribute which transformers has renamed; users cannot mend it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        yield
