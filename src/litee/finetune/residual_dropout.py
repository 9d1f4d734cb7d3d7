"""LIMA's residual dropout: rates that rise from 0 at the first layer to p at the last.

Dropout is element-wise on what a sub-layer (attention, MLP) adds to the residual stream, just
before it is added, and only while the model is in training mode. Knows nothing of data and
training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from litee.errors import ConfigError

#: What a sub-layer returns: its output, or a tuple that starts with it.
_Output = Tensor | tuple[Tensor, ...]


def ramp(peak: float, layers: int) -> list[float]:
    """One rate per layer, a straight line from 0 to `peak` (LIMA, arXiv 2305.11206, section 3.2).

    >>> ramp(0.3, 4)
    [0.0, 0.1, 0.2, 0.3]
    >>> ramp(0.3, 1)
    [0.3]
    """
    if layers == 1:
        return [peak]
    return [round(peak * k / (layers - 1), 12) for k in range(layers)]


def add_residual_dropout(model: PreTrainedModel, peak: float) -> list[RemovableHandle]:
    """Put dropout on every residual branch of a decoder; 0 puts none.

    Args:
        model: a causal language model with `get_decoder().layers`.
        peak: rate of the last layer, in [0, 1).

    Returns:
        Handles whose `remove()` takes the dropout off again.

    Raises:
        ConfigError: the model's layers add something else to the residual stream, too.
    """
    if not peak:
        return []
    layers = _layers(model)
    _check(model, layers)
    handles = []
    for layer, rate in zip(layers, ramp(peak, len(layers)), strict=True):
        if rate:
            handles += [part.register_forward_hook(_dropout(rate)) for part in branches(layer)]
    return handles


def branches(layer: nn.Module) -> list[nn.Module]:
    """The modules whose outputs a decoder layer adds to the residual stream.

    Gemma 2 and 3 norm what attention and MLP give before they add it; the others do not.
    """
    normed = [
        getattr(layer, name, None)
        for name in ("post_attention_layernorm", "post_feedforward_layernorm")
    ]
    if isinstance(normed[1], nn.Module) and isinstance(normed[0], nn.Module):
        return [part for part in normed if part is not None]
    plain = [getattr(layer, name, None) for name in ("self_attn", "mlp")]
    return [part for part in plain if isinstance(part, nn.Module)]


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    layers = getattr(model.get_decoder(), "layers", None)  # type: ignore[no-untyped-call]
    if not isinstance(layers, nn.ModuleList):
        raise ConfigError(
            f"residual_dropout: {type(model).__name__} has no list of layers",
            fix="set residual_dropout to 0 for this model",
        )
    return list(layers)


def _check(model: PreTrainedModel, layers: list[nn.Module]) -> None:
    """With every branch at zero the stack must hand its input through, or a branch was missed."""
    seen: list[Tensor] = []

    def keep_input(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).detach())

    def keep_output(_: nn.Module, __: tuple[Tensor, ...], output: _Output) -> None:
        seen.append(_first(output).detach())

    ids = torch.tensor([[0, 1]], device=model.device)
    with _hooks() as add, torch.inference_mode():
        add(layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
        for part in (part for layer in layers for part in branches(layer)):
            add(part.register_forward_hook(lambda _, __, out: _changed(out, torch.zeros_like)))
        add(layers[-1].register_forward_hook(keep_output))
        model.get_decoder()(input_ids=ids, use_cache=False)  # type: ignore[no-untyped-call]
    if not torch.equal(seen[0], seen[-1]):
        raise ConfigError(
            f"residual_dropout: {type(model).__name__} adds more than its attention and MLP to "
            "the residual stream",
            fix="set residual_dropout to 0 for this model",
        )


@contextmanager
def _hooks() -> Iterator[Callable[[RemovableHandle], None]]:
    handles: list[RemovableHandle] = []
    try:
        yield handles.append
    finally:
        for handle in handles:
            handle.remove()


def _dropout(rate: float) -> Callable[[nn.Module, tuple[Tensor, ...], _Output], _Output | None]:
    def hook(module: nn.Module, _: tuple[Tensor, ...], output: _Output) -> _Output | None:
        if not module.training:
            return None
        return _changed(output, lambda states: functional.dropout(states, rate))

    return hook


def _first(output: _Output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _changed(output: _Output, change: Callable[[Tensor], Tensor]) -> _Output:
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)
