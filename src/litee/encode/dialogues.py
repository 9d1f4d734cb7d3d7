"""Token ids of a dialogue up to the place where the assistant's next answer starts.

The chat template is rendered around placeholders and split at them, so that text in a message
which spells a marker of the template stays text: nobody can end a turn by writing so. Knows
nothing of models, budgets and sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from jinja2 import TemplateError

from litee.encode.templates import Template
from litee.errors import InputError, ModelError
from litee.records import Message

_MARK = "\ue000{}\ue001"

#: What starts another question in the plain template; base models go on with it by themselves.
PLAIN_STOP = "\n\nQuestion:"

_ROLES = ("system", "user", "assistant")


class DialogueEncoder:
    """Encodes dialogues for generation.

    Args:
        template: `chat` renders the tokenizer's chat template with its generation prompt; `plain`
            writes `Question: … Answer:` for base models.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self._literals = lru_cache(maxsize=256)(self._split)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end an answer beside the end-of-turn token."""
        return () if self.template.name == "chat" else (PLAIN_STOP,)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the whole dialogue and of what precedes the next answer.

        Args:
            messages: an optional system message, then messages of user and assistant; the last
                one is the user's.

        Raises:
            InputError: no messages, an unknown role, or the last message is not the user's.
            ModelError: the chat template fails on these roles.
        """
        check_messages(messages)
        literals = self._literals(tuple(message.role for message in messages))
        ids = list(literals[0])
        for message, literal in zip(messages, literals[1:], strict=True):
            ids += self.template.encode_text(message.text)
            ids += literal
        return ids

    def _split(self, roles: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Ids before, between and after the messages' texts."""
        text = self._chat(roles) if self.template.name == "chat" else self._plain(roles)
        found = []
        for k in range(len(roles)):
            literal, mark, text = text.partition(_MARK.format(k))
            if not mark:
                raise ModelError(
                    f"the chat template does not show every message of {', '.join(roles)}",
                    fix="leave the system message out, or use another backbone",
                )
            found.append(literal)
        return tuple(tuple(self.template.encode_literal(part)) for part in [*found, text])

    def _chat(self, roles: tuple[str, ...]) -> str:
        messages = [{"role": r, "content": _MARK.format(k)} for k, r in enumerate(roles)]
        try:
            rendered: str = self.template.tokenizer.apply_chat_template(  # type: ignore[assignment]
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ModelError(
                f"the chat template refuses the roles {', '.join(roles)}: {error}",
                fix="let user and assistant take turns; some templates know no system message",
            ) from error
        return rendered

    def _plain(self, roles: tuple[str, ...]) -> str:
        start = {"system": "", "user": "Question: ", "assistant": "Answer: "}
        parts = [start[role] + _MARK.format(k) for k, role in enumerate(roles)]
        bos = self.template.tokenizer.bos_token or ""
        return str(bos) + "\n\n".join([*parts, "Answer:"])


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse a dialogue that asks nothing.

    Raises:
        InputError: no messages, an unknown role, a system message that is not the first, or the
            last message is not the user's.

    >>> check_messages([Message("system", "Be brief."), Message("user", "Hello")])
    """
    roles = [message.role for message in messages]
    fix = "an optional system message first, then user and assistant; the user's is the last"
    unknown = sorted(set(roles) - set(_ROLES))
    if unknown:
        raise InputError(f"unknown role {unknown[0]!r}", fix=f"roles: {', '.join(_ROLES)}")
    if "system" in roles[1:]:
        raise InputError("a system message that is not the first one", fix=fix)
    if not roles or roles[-1] != "user":
        raise InputError("the last message is not the user's", fix=fix)
