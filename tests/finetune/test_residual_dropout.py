"""LIMA's dropout ramp: rates by hand, and where the zeros fall."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from litee.errors import ConfigError
from litee.finetune.residual_dropout import add_residual_dropout, branches, ramp
from tiny_models import FAMILIES


def test_the_ramp_by_hand():
    assert ramp(0.2, 3) == [0.0, 0.1, 0.2]
    assert ramp(0.3, 7) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_shares_of_dropped_elements_rise_with_the_layers(tiny, family):
    """Every element that a branch adds is zero with the layer's rate, else scaled by 1/(1−p)."""
    model = AutoModelForCausalLM.from_pretrained(tiny(family))
    handles = add_residual_dropout(model, 0.6)
    seen: dict[int, list[torch.Tensor]] = {}
    for number, layer in enumerate(model.get_decoder().layers):
        for part in branches(layer):
            part.register_forward_hook(keep(seen.setdefault(number, [])))
    ids = torch.arange(4, 204)[None]
    torch.manual_seed(0)
    model.train()
    model(input_ids=ids)
    shares = [torch.cat([o.flatten() for o in seen[k]]).eq(0).float().mean() for k in range(4)]
    assert [float(s) for s in shares] == pytest.approx([0, 0.2, 0.4, 0.6], abs=0.02)
    model.eval()
    with torch.no_grad():
        off = model(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, off)


def keep(found):
    def hook(_, __, output):
        found.append((output[0] if isinstance(output, tuple) else output).detach())

    return hook


def test_kept_elements_are_scaled_up(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    last = model.get_decoder().layers[-1].mlp
    plain, dropped = [], []
    last.register_forward_hook(keep(plain))
    add_residual_dropout(model, 0.5)
    last.register_forward_hook(keep(dropped))
    torch.manual_seed(0)
    model.train()(input_ids=torch.arange(4, 60)[None])
    kept = dropped[-1] != 0
    torch.testing.assert_close(dropped[-1][kept], plain[-1][kept] / 0.5)


def test_zero_changes_nothing_and_unknown_layers_are_refused(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    assert add_residual_dropout(model, 0.0) == []
    model.get_decoder().layers[1].register_forward_hook(lambda _, args, output: output + 1)
    with pytest.raises(ConfigError, match="adds more than"):
        add_residual_dropout(model, 0.1)
