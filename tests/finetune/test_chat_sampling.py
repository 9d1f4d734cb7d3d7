"""Samples from a model in tuning: stops, seeds, order, and what the penalty counts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_sampling import Sampling, sample_answers
from litee.records import Message


def ask(text):
    return (Message("user", text),)


@pytest.fixture
def parts(tiny):
    folder = tiny("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), ChatEncoder(tokenizer, 200), tokenizer


def test_the_same_call_gives_the_same_answers_in_order(parts):
    how = Sampling(8, temperature=1.0, batch=2, seed=3)
    prompts = [ask("a long question"), ask("q"), ask("another one")]
    first = sample_answers(*parts, prompts, how)
    assert sample_answers(*parts, prompts, how) == first
    assert sample_answers(*parts, prompts, Sampling(8, 1.0, batch=2, seed=4)) != first
    assert len({one.text for one in first}) == 3
    assert all(one.tokens <= 8 for one in first)


def test_greedy_answers_are_the_models_own(parts):
    """Left padding and batches change nothing: each answer is what the model gives alone."""
    model, encoder, tokenizer = parts
    prompts = [ask("a long question"), ask("q")]
    found = sample_answers(model, encoder, tokenizer, prompts, Sampling(5, temperature=0, batch=2))
    for messages, one in zip(prompts, found, strict=True):
        ids = list(encoder.prompt(messages))
        start = len(ids)
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        own = ids[start:]
        finished = own[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(own[:-1] if finished else own, skip_special_tokens=True)
        assert (one.text, one.finished, one.tokens) == (text.strip(), finished, len(own))


def test_the_prompts_end_of_turn_is_not_penalised(parts):
    """A model that always wants to stop stops, although its prompt holds the end of a turn."""
    model, encoder, tokenizer = parts
    assert tokenizer.eos_token_id == 3
    model.register_forward_hook(positive)
    how = Sampling(4, temperature=0, repetition_penalty=1.2)
    (one,) = sample_answers(model, encoder, tokenizer, [ask("q")], how)
    assert one.finished
    assert one.tokens == 1


def positive(_, __, output):
    """Logits as if every state were the same, the end of turn just ahead."""
    output.logits = torch.zeros_like(output.logits)
    output.logits[..., 3] = 1.0
    output.logits[..., 9] = 0.95
    return output
