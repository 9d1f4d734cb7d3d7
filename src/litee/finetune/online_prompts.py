"""Prompts of online tuning: which can be used, and which are held out.

Knows nothing of rewards and trainers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from litee.collect.near import normalise
from litee.errors import InputError
from litee.finetune.chat_data import ChatEncoder
from litee.finetune.chat_model import ChatModel
from litee.finetune.chat_settings import OnlineSettings
from litee.records import Dropped, Message


def usable_prompts(
    conversations: Sequence[tuple[Message, ...]], encoder: ChatEncoder, chat: ChatModel
) -> tuple[list[tuple[Message, ...]], Dropped]:
    """Prompts that fit, without repeats; TRL renders them, so special tokens in them are refused.

    Raises:
        InputError: none is left.
    """
    added = chat.tokenizer.added_tokens_decoder.values()
    specials = {str(token) for token in added if token.special}  # a line break may be an added one
    kept: dict[tuple[Message, ...], None] = {}
    dropped: Counter[str] = Counter()
    for messages in conversations:
        if messages in kept:
            dropped["the same prompt again"] += 1
        elif len(encoder.prompt(messages)) > encoder.max_length:
            dropped[f"longer than {encoder.max_length} tokens"] += 1
        elif any(token in m.text for m in messages for token in specials if token):
            dropped["spells a special token"] += 1
        else:
            kept[messages] = None
    if not kept:
        raise InputError(
            f"no prompt is left of {len(conversations)}: {dict(dropped)}",
            fix="give other prompts, or raise max_prompt_tokens",
        )
    return list(kept), Dropped(dict(dropped))


def split_prompts(
    prompts: Sequence[tuple[Message, ...]], settings: OnlineSettings
) -> tuple[list[tuple[Message, ...]], list[tuple[Message, ...]]]:
    """(held out, to train on), by the seed; at most half are held out.

    Prompts that differ in capitals and white space alone stay on one side.

    Raises:
        InputError: a step needs more prompts than are left.
    """
    keys = [tuple(normalise(m.text) for m in messages) for messages in prompts]
    count = min(settings.dev_prompts, len(prompts) // 2)
    chosen: set[tuple[str, ...]] = set()
    for k in np.random.default_rng(settings.seed).permutation(len(prompts)).tolist():
        if sum(key in chosen for key in keys) >= count:
            break
        chosen.add(keys[k])
    held = [one for one, key in zip(prompts, keys, strict=True) if key in chosen]
    rest = [one for one, key in zip(prompts, keys, strict=True) if key not in chosen]
    needed = settings.batch_size // settings.samples
    if len(rest) < needed:
        raise InputError(
            f"{len(rest)} prompts are left to train on, a step takes {needed}",
            fix="give more prompts, or lower batch_size or dev_prompts",
        )
    return held, rest
