"""Conversations as token ids with labels: the loss falls on what the assistant says, and stops.

Every assistant turn is followed by the end-of-turn token, and both are labelled; everything else
(system, user, the template's literals) is context. Text that spells a special token stays text.
Knows nothing of models and trainers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from litee.encode.templates import Template
from litee.errors import InputError, ModelError
from litee.records import Demonstration, Dropped, Message

#: What the loss skips, as transformers and TRL have it.
IGNORED = -100

#: LIMA's bare form for models without a chat template: every utterance and its end-of-turn token.
LIMA_TEMPLATE = (
    "{BOS}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ message['content'] + '\\n\\n' }}{% else %}{{ message['content'] + '{EOT}' }}"
    "{% endif %}{% endfor %}"
)

_MARK = "\ue000{}\ue001"


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """One row of training data.

    Attributes:
        ids: token ids.
        labels: the same ids where the loss falls, else `IGNORED`.
        cut: tokens that did not fit.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int = 0


@dataclass(frozen=True, slots=True)
class EncodedChats:
    """Rows of training data, and what became of the demonstrations.

    Attributes:
        rows: in the order of the demonstrations.
        dropped: demonstrations that give no row, by reason.
        noticed: demonstrations that were cut, by reason.
        tokens: ids in all rows.
        trained_tokens: labels in all rows.
    """

    rows: tuple[EncodedChat, ...]
    dropped: Dropped
    noticed: Dropped
    tokens: int
    trained_tokens: int


@dataclass(frozen=True, slots=True)
class _Literals:
    """Template ids around the messages: before each one, and after the last."""

    before: tuple[tuple[int, ...], ...]
    end: tuple[int, ...]


class ChatEncoder(Template):
    """Renders conversations with a tokenizer's chat template.

    Args:
        tokenizer: with a chat template.
        max_length: longest row in tokens.

    Raises:
        ConfigError: the tokenizer has no chat template.
        ModelError: the template cannot be split at its messages, or does not end a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super().__init__(tokenizer, "chat")
        self.max_length = max_length
        self.literals = lru_cache(maxsize=64)(self._literals)
        self.end_of_turn = self.literals(("user", "assistant")).end
        special = set(tokenizer.all_special_ids) | {*tokenizer.added_tokens_decoder}
        if not special & set(self.end_of_turn):
            raise ModelError(
                "the chat template puts no special token after an answer",
                fix="name one with --eot",
            )

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids up to where the answer to the last user message begins."""
        roles = (*(m.role for m in messages), "assistant")
        literals = self.literals(roles)
        ids: list[int] = []
        for before, message in zip(literals.before, messages, strict=False):
            ids += [*before, *self.encode_text(message.text)]
        return (*ids, *literals.before[-1])

    def answer(self, text: str, *, finished: bool = True) -> tuple[int, ...]:
        """Ids of an answer and, unless it was cut off, of the end of its turn."""
        return (*self.encode_text(text), *(self.end_of_turn if finished else ()))

    def encode(self, messages: Sequence[Message]) -> EncodedChat:
        """Ids and labels of a conversation that ends with the assistant.

        What follows an earlier answer is labelled as far as it is the end of the turn; the
        template's words before the next user message are not.
        """
        literals = self.literals(tuple(m.role for m in messages))
        ids: list[int] = []
        labels: list[int] = []
        after_answer = False
        for before, message in zip(literals.before, messages, strict=True):
            ends = _common(literals.end, before) if after_answer else 0
            ids += before
            labels += [*before[:ends], *[IGNORED] * (len(before) - ends)]
            text = self.encode_text(message.text)
            after_answer = message.role == "assistant"
            ids += text
            labels += text if after_answer else [IGNORED] * len(text)
        ids += literals.end
        labels += literals.end
        cut = max(0, len(ids) - self.max_length)
        return EncodedChat(tuple(ids[: self.max_length]), tuple(labels[: self.max_length]), cut)

    def _literals(self, roles: tuple[str, ...]) -> _Literals:
        messages = [{"role": r, "content": _MARK.format(k)} for k, r in enumerate(roles)]
        text: str = self._tokenizer.apply_chat_template(  # type: ignore[assignment]
            messages, tokenize=False, add_generation_prompt=False
        )
        pieces = []
        for k in range(len(roles)):
            piece, mark, text = text.partition(_MARK.format(k))
            if not mark:
                raise ModelError(
                    f"the chat template does not show every message in order ({', '.join(roles)})",
                    fix="use demonstrations without system messages, or another backbone",
                )
            pieces.append(tuple(self._ids(piece, special_as_text=False)))
        end = tuple(self._ids(text.rstrip("\n "), special_as_text=False))
        return _Literals(tuple(pieces), end)


def _common(end: Sequence[int], before: Sequence[int]) -> int:
    """Length of the common beginning."""
    count = 0
    for one, other in zip(end, before, strict=False):
        if one != other:
            break
        count += 1
    return count


def encode_demonstrations(
    demonstrations: Sequence[Demonstration], encoder: ChatEncoder
) -> EncodedChats:
    """Rows of all demonstrations; what is dropped or cut is counted by reason.

    Raises:
        InputError: no demonstration is left.
    """
    rows: list[EncodedChat] = []
    dropped: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for one in demonstrations:
        row = encoder.encode(one.messages)
        if all(label == IGNORED for label in row.labels):
            dropped[f"no answer within {encoder.max_length} tokens"] += 1
            continue
        if row.cut:
            cut[f"cut at {encoder.max_length} tokens, so without its end of turn"] += 1
        rows.append(row)
    if not rows:
        raise InputError(
            f"none of {len(demonstrations)} demonstrations is left",
            fix="give more demonstrations, or raise max_length",
        )
    return EncodedChats(
        tuple(rows),
        Dropped(dict(dropped)),
        Dropped(dict(cut)),
        sum(len(row.ids) for row in rows),
        sum(label != IGNORED for row in rows for label in row.labels),
    )


def hold_out(
    demonstrations: Sequence[Demonstration], count: int, seed: int
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Split off demonstrations for development, prompt by prompt.

    Demonstrations with the same first user message stay on one side.

    Args:
        demonstrations: all of them.
        count: how many to hold out, at least; at most half of the prompts are.
        seed: of the choice.

    Returns:
        (to train on, held out), each in the given order.
    """
    prompts = [first_prompt(one) for one in demonstrations]
    distinct = sorted(set(prompts))
    order = np.random.default_rng(seed).permutation(len(distinct))
    chosen: set[str] = set()
    held = 0
    sizes = Counter(prompts)
    for k in order[: len(distinct) // 2]:
        if held >= count:
            break
        chosen.add(distinct[k])
        held += sizes[distinct[k]]
    train = [d for d, p in zip(demonstrations, prompts, strict=True) if p not in chosen]
    return train, [d for d, p in zip(demonstrations, prompts, strict=True) if p in chosen]


def first_prompt(one: Demonstration) -> str:
    """The first user message, white space and case evened out."""
    text = next(m.text for m in one.messages if m.role == "user")
    return " ".join(text.lower().split())


def asked(one: Demonstration) -> tuple[Message, ...]:
    """The conversation up to the user message that the last answer answers."""
    return one.messages[:-1]
