"""LoRA layers computed twice: the same gradients and branches, with less kept in between."""

from __future__ import annotations

import pytest
import torch
from test_trunk import one_pack, some_forest

from litee.config import FitSettings
from litee.finetune.adapters import Adapters, Segment
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.trunk import lay_out, pooled
from tiny_models import LAYERS, WIDTH

START = 1


def step(folder, *, twice, names=("one", "two")):
    """Loss, gradients of two adapters with dropout, and bytes kept for the gradients."""
    given = FitSettings(lora_r=2, lora_alpha=4, lora_dropout=0.3, gradient_checkpointing=twice)
    trunk = load_backbone(find_backbone(str(folder))).trunk
    adapters = Adapters(trunk, start=START, settings=given, backbone="tiny")
    parameters = {}
    for seed, name in enumerate(names):
        parameters |= adapters.add(name, seed=seed)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05)
    forest = some_forest(3)
    trees = lay_out(forest, one_pack(forest))
    states = trunk.run(trees, depths=[START])[START].detach()
    tokens = len(trees.ids)
    first = tokens // 2
    segments = [Segment(names[0], first, 5), Segment(names[1], tokens - first, 6)]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with adapters.together(segments):
            top = trunk.run(trees, start=START, states=states, depths=[LAYERS])[LAYERS]
        loss = (pooled(top, trees).flatten(1) @ torch.linspace(-1, 1, 2 * WIDTH)).square().mean()
    at_forward = sum(kept.values())
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in parameters.items()}
    adapters.remove()
    assert "forward" not in vars(trunk.layers[START])
    return loss.detach(), gradients, at_forward


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen3", "mistral"])
def test_gradients_are_the_same_to_the_last_bit(tiny, family):
    once, gradients, kept = step(tiny(family), twice=False)
    loss, again, kept_less = step(tiny(family), twice=True)
    assert torch.equal(loss, once)
    assert gradients.keys() == again.keys() and len(gradients) > 20
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0
        assert torch.equal(gradient, again[name]), name
    assert kept_less < kept / 3


def test_nothing_is_computed_twice_without_gradients(tiny):
    given = FitSettings(lora_r=2, gradient_checkpointing=True)
    trunk = load_backbone(find_backbone(str(tiny("llama")))).trunk
    adapters = Adapters(trunk, start=START, settings=given, backbone="tiny")
    adapters.add("one", seed=0)
    forest = some_forest(3)
    trees = lay_out(forest, one_pack(forest))
    with torch.inference_mode(), adapters.together([Segment("one", len(trees.ids))]):
        adapted = trunk.run(trees, depths=[LAYERS])[LAYERS]
    with torch.inference_mode():
        plain = trunk.run(trees, depths=[LAYERS])[LAYERS]
    assert torch.equal(adapted, plain)  # B is zero
