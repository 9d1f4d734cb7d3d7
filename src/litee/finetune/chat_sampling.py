"""Samples answers from a model in tuning, in batches of like length, by `model.generate`.

Every batch has a seed of its own, so the same call gives the same answers. Knows nothing of
rewards; answers for people to read come from `litee generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
)

from litee.finetune.chat_data import ChatEncoder
from litee.progress import progress
from litee.records import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_tokens: longest answer.
        temperature: 0 takes the likeliest token.
        top_p: nucleus.
        repetition_penalty: 1 for none; of words that the answer has used. The prompt's do not
            count, for they hold the end of turn, which would then never come.
        batch: answers drawn at once.
        seed: of the draws.
    """

    max_tokens: int = 128
    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answer.

    Attributes:
        text: without special tokens, white space at its ends stripped.
        tokens: how many were drawn, the end of the turn included.
        finished: whether it ended by itself.
    """

    text: str
    tokens: int
    finished: bool


def sample_answers(
    model: PreTrainedModel | PeftModel,
    encoder: ChatEncoder,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    how: Sampling,
    *,
    title: str = "answers",
) -> list[Sampled]:
    """One answer per conversation, in their order; name one several times for several answers."""
    prompts = [encoder.prompt(messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda k: (len(prompts[k]), k))
    found: dict[int, Sampled] = {}
    was_training = model.training
    model.eval()
    try:
        with progress(title, len(prompts), "answers") as advance:
            for number, start in enumerate(range(0, len(order), how.batch)):
                rows = order[start : start + how.batch]
                part = _batch(model, tokenizer, [prompts[k] for k in rows], how, number)
                found.update(zip(rows, part, strict=True))
                advance(len(rows))
    finally:
        model.train(was_training)
    return [found[k] for k in range(len(prompts))]


def _batch(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    number: int,
) -> list[Sampled]:
    width = max(map(len, prompts))
    pad, stop = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    drawn = how.temperature > 0
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=how.max_tokens,
        do_sample=drawn,
        temperature=how.temperature if drawn else None,
        top_p=how.top_p if drawn else None,
        top_k=0 if drawn else None,
        pad_token_id=pad,
        eos_token_id=stop,
    )
    penalties = LogitsProcessorList()
    if how.repetition_penalty != 1:
        penalties.append(
            RepetitionPenaltyLogitsProcessor(how.repetition_penalty, prompt_ignore_length=width)
        )
    seed = np.random.SeedSequence([how.seed, number]).generate_state(1, np.uint64)[0] >> 1
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(int(seed))
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=penalties,
        )
    return [_read(tokenizer, row[width:].tolist(), stop) for row in out]


def _read(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: int) -> Sampled:
    finished = stop in ids
    kept = ids[: ids.index(stop)] if finished else ids
    text = str(tokenizer.decode(kept, skip_special_tokens=True)).strip()
    return Sampled(text, len(kept) + finished, finished)
