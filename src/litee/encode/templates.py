"""Prompt templates: what stands around the texts of a conversation before it reaches a model.

A template is a list of literal pieces between the turns. The chat template of a backbone is
split at its turns once, so that a long conversation is rendered by joining token ids and the
contents can be cut without touching the markers. Text that looks like a marker stays text.
Knows nothing of budgets, pairs and models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateError

from litee.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["auto", "chat", "plain"]

#: Raise when the rendering of any template changes: judges remember the version.
TEMPLATE_VERSION = 1

_MARK = "\ue000{}\ue001"


@dataclass(frozen=True, slots=True)
class Pieces:
    """Literal token ids around `turns` user and assistant texts.

    Attributes:
        before_user: ids before each user turn; the first includes any system prompt.
        before_answer: ids between a user turn and its answer.
        end: ids that close an answer; the state of the last one is what heads read.
    """

    before_user: tuple[tuple[int, ...], ...]
    before_answer: tuple[tuple[int, ...], ...]
    end: tuple[int, ...]


class Template:
    """A versioned template bound to a tokenizer.

    Args:
        tokenizer: a transformers fast tokenizer.
        name: `chat` (the tokenizer's own), `plain` (for base models), or `auto`: chat when the
            tokenizer has one.

    Raises:
        ConfigError: `chat` was asked for and the tokenizer has no chat template.
        ModelError: the tokenizer's chat template cannot be split at its turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: TemplateName = "auto") -> None:
        has_chat = bool(tokenizer.chat_template)
        if name == "chat" and not has_chat:
            raise ConfigError(
                "template = 'chat', but the backbone's tokenizer has no chat template",
                fix="use --template plain, or auto",
            )
        self.name: Literal["chat", "plain"] = "chat" if has_chat and name != "plain" else "plain"
        self._tokenizer = tokenizer
        self._lead = self._leading_ids()
        self.pieces = lru_cache(maxsize=64)(self._pieces)

    @property
    def id(self) -> str:
        """Name and version, as stored in a judge: `chat-v1` or `plain-v1`."""
        return f"{self.name}-v{TEMPLATE_VERSION}"

    def encode_text(self, text: str) -> list[int]:
        """Token ids of user-written text; text that spells a special token stays plain text."""
        return self._ids(text, special_as_text=True)

    def encode_literal(self, text: str) -> list[int]:
        """Token ids of a template's own text, in which special tokens count as such."""
        return self._ids(text, special_as_text=False)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer it is bound to."""
        return self._tokenizer

    def _leading_ids(self) -> list[int]:
        """Ids of a line break where the tokenizer puts a space before every text, else none.

        SentencePiece tokenizers such as Llama 2's do so; it would be wrong in mid-conversation.
        """
        backend = self._tokenizer.backend_tokenizer
        encoded = backend.encode("\n", add_special_tokens=False)
        prepends = len(encoded.ids) > 1 and encoded.tokens[0].startswith("\u2581")
        return list(encoded.ids) if prepends else []

    def _ids(self, text: str, *, special_as_text: bool) -> list[int]:
        if self._lead and text:
            ids = self._plain_ids("\n" + text, special_as_text=special_as_text)
            if ids[: len(self._lead)] == self._lead:
                return ids[len(self._lead) :]
        return self._plain_ids(text, special_as_text=special_as_text)

    def _plain_ids(self, text: str, *, special_as_text: bool) -> list[int]:
        backend = self._tokenizer.backend_tokenizer
        backend.encode_special_tokens = special_as_text
        try:
            ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        finally:
            backend.encode_special_tokens = False
        return ids

    def _pieces(self, turns: int) -> Pieces:
        literals = self._chat(turns) if self.name == "chat" else self._plain(turns)
        ids = [tuple(self._ids(text, special_as_text=False)) for text in literals]
        return Pieces(tuple(ids[:-1:2]), tuple(ids[1:-1:2]), ids[-1])

    def _plain(self, turns: int) -> list[str]:
        bos, eos = self._tokenizer.bos_token or "", self._tokenizer.eos_token or "\n\n"
        literals = [f"{bos}Question: ", "\n\nAnswer: "]
        for _ in range(turns - 1):
            literals += ["\n\nQuestion: ", "\n\nAnswer: "]
        return [*literals, eos]

    def _chat(self, turns: int) -> list[str]:
        messages: list[dict[str, str]] = []
        for k in range(turns):
            messages.append({"role": "user", "content": _MARK.format(2 * k)})
            messages.append({"role": "assistant", "content": _MARK.format(2 * k + 1)})
        try:
            text: str = self._tokenizer.apply_chat_template(  # type: ignore[assignment]
                messages, tokenize=False, add_generation_prompt=False
            )
        except TemplateError as error:
            fix = "use --template plain for this backbone"
            raise ModelError(f"the chat template fails: {error}", fix=fix) from error
        literals = []
        for k in range(2 * turns):
            literal, mark, text = text.partition(_MARK.format(k))
            if not mark:
                raise ModelError(
                    "the chat template does not show every turn in order",
                    fix="use --template plain for this backbone",
                )
            literals.append(literal)
        return [*literals, text.rstrip("\n ") or "\n"]


def check_turns(prompt: Sequence[str], answers: Sequence[str]) -> None:
    """Raise ValueError unless there is one answer per user turn."""
    if not prompt or len(prompt) != len(answers):
        raise ValueError(f"{len(prompt)} user turns but {len(answers)} answers")
