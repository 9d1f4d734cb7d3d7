"""The head of verdict members against plain transformers, on real tiny architectures."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from litee.encode.budget import TokenBudget
from litee.encode.forest import PairEncoder, grow
from litee.encode.templates import Template
from litee.encode.verdicts import QUESTION, SHOTS, VERDICTS
from litee.errors import ConfigError, ModelError
from litee.finetune.backbones import find_backbone, load_backbone
from litee.finetune.branch import load_head, save_head
from litee.finetune.probe import PairStates, predict_head
from litee.finetune.states import PooledStore
from litee.predict.labels import label_starts
from litee.predict.verdict_head import verdict_head
from litee.records import Pair
from tiny_models import plain_model, save_tiny

PAIR = Pair("1", ("Which is larger?",), ("The sun is.",), ("I cannot tell.",))


def encoder_of(backbone, *, shots: int = 0) -> PairEncoder:
    budget = TokenBudget(200, (0.2, 0.4, 0.4))
    template = Template(backbone.tokenizer)
    return PairEncoder(template, budget, encoder="verdict", shots=shots)


def replies(model, template: Template, ids) -> torch.Tensor:
    """What plain transformers says: probabilities of A, B and tie among each other."""
    with torch.inference_mode():
        logits = model(torch.tensor([list(ids)])).logits[0, -1].double()
    starts = label_starts(template, VERDICTS)
    return torch.stack([logits[list(s)].logsumexp(0) for s in starts]).softmax(0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen3"])
@pytest.mark.parametrize("shots", [0, 3])
def test_probabilities_are_those_of_the_whole_model_in_both_orders(tmp_path, family, shots):
    save_tiny(tmp_path / "model", family, max_position_embeddings=4096)
    backbone = load_backbone(find_backbone(str(tmp_path / "model")))
    encoder = encoder_of(backbone, shots=shots)
    encoded = encoder.encode(PAIR)
    forest = grow([encoded])
    head = verdict_head(backbone, encoder.template)
    save_head(head, tmp_path / "head.safetensors")
    head = load_head("verdict", tmp_path / "head.safetensors")
    store = PooledStore(backbone, [backbone.layers], folder=tmp_path / "states")
    states = store.compute(forest, title="states")[:, 0, 0]
    (found,) = predict_head(head, PairStates(states, forest.left, forest.right))

    model = plain_model(tmp_path / "model")
    one = replies(model, encoder.template, encoded.prefix + encoded.left).log()
    two = replies(model, encoder.template, encoded.prefix + encoded.right).log()
    expected = ((one + two[[1, 0, 2]]) / 2).softmax(0)
    assert found == pytest.approx(expected.tolist(), abs=2e-4)
    assert max(found) - min(found) > 1e-3  # a head that says nothing would pass otherwise


def test_a_norm_that_is_no_rmsnorm_is_refused(tmp_path):
    save_tiny(tmp_path / "model", "phi")
    backbone = load_backbone(find_backbone(str(tmp_path / "model")))
    with pytest.raises(ModelError, match="no RMSNorm"):
        verdict_head(backbone, Template(backbone.tokenizer))


@pytest.mark.parametrize("chat", [True, False])
def test_shots_are_earlier_turns_and_only_the_last_question_is_open(tmp_path, chat):
    save_tiny(tmp_path / "model", "llama", chat=chat)
    backbone = load_backbone(find_backbone(str(tmp_path / "model")))
    encoder = encoder_of(backbone, shots=2)
    encoded = encoder.encode(PAIR)
    text = backbone.tokenizer.decode(encoded.prefix + encoded.left)
    assert text.count(QUESTION) == 3
    for shot in SHOTS[:2]:
        assert text.index(shot.prompt) < text.index(shot.response_a) < text.index(shot.response_b)
    assert SHOTS[2].prompt not in text
    order = [text.index(part) for part in (SHOTS[0].prompt, SHOTS[1].prompt, PAIR.prompt[0])]
    assert order == sorted(order)
    assert text.index("The sun is.") < text.index("I cannot tell.") < text.rindex(QUESTION)
    swapped = backbone.tokenizer.decode(encoded.prefix + encoded.right)
    assert swapped.index("I cannot tell.") < swapped.index("The sun is.")
    assert encoded.cut == (0, 0, 0)


def test_shots_count_towards_the_positions(tmp_path):
    save_tiny(tmp_path / "model", "llama")
    backbone = load_backbone(find_backbone(str(tmp_path / "model")))
    template = Template(backbone.tokenizer)
    budget = TokenBudget(64, (0.2, 0.4, 0.4))
    plain = PairEncoder(template, budget, encoder="verdict")
    longest = Pair("1", ("p" * 200,), ("a" * 200,), ("b" * 200,))
    encoded = plain.encode(longest)
    room = len(encoded.prefix) + len(encoded.left) + 2  # thirds of 64 tokens leave up to two
    PairEncoder(template, budget, encoder="verdict", max_positions=room)
    with pytest.raises(ConfigError, match="template tokens do not fit"):
        PairEncoder(template, budget, encoder="verdict", shots=1, max_positions=room)
