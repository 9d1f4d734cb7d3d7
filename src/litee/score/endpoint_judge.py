"""A judging model behind an OpenAI-compatible endpoint: questions out, labels back.

The reply must be a JSON object whose `verdict` is one of the allowed labels; everything else is
no verdict, with its reason. Knows nothing of HTTP and of criteria.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from litee.records import JudgeQuestion, JudgeVerdict
from litee.rundir import Json
from litee.score.endpoint import CUT_OFF, EMPTY, Endpoint, Reply
from litee.score.llm_judge_settings import LlmJudgeSettings

#: Why a reply is no verdict.
INVALID_JSON, WRONG_LABEL, NO_VERDICT = "invalid JSON", "label not allowed", "no verdict in JSON"

#: Reasons the model gives that are kept, in characters.
_COMMENT = 2000

#: Characters that stand for a token when texts are cut.
_CHARACTERS = 4

_BLOCK = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)


class EndpointJudge:
    """Asks an endpoint, several questions at once.

    Args:
        endpoint: where to ask.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.settings = endpoint.settings

    @property
    def id(self) -> str:
        """Endpoint, model and the settings that can change a verdict."""
        s = self.settings
        kind = f"{s.structured}/{s.comment}/{s.temperature}/{s.max_reply_tokens}"
        return f"{s.base_url}/{s.model}/{kind}/{s.max_text_tokens}"

    def ask(self, questions: Sequence[JudgeQuestion]) -> Iterator[tuple[int, JudgeVerdict]]:
        """Verdicts with the number of their question, as they come.

        Raises:
            ModelError: the endpoint refuses the key or does not know the address or the model.
        """
        pool = ThreadPoolExecutor(max_workers=self.settings.concurrency)
        try:
            waiting = {pool.submit(self._ask, q): k for k, q in enumerate(questions)}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, question: JudgeQuestion) -> JudgeVerdict:
        text, cut = render(question, _CHARACTERS * self.settings.max_text_tokens)
        form = _form(question.labels, comment=self.settings.comment)
        messages = [
            {"role": "system", "content": f"{question.rules.strip()}\n\n{form}"},
            {"role": "user", "content": text},
        ]
        check: Callable[[str], str] = partial(_problem, labels=question.labels)
        schema = verdict_schema(question.labels, comment=self.settings.comment)
        reply = self.endpoint.chat(messages, schema=schema, check=check)
        return _verdict(reply, question.labels, cut)


def render(question: JudgeQuestion, limit: int) -> tuple[str, int]:
    """The passages as one text, quoted ones without their middle where they exceed the limit.

    Args:
        question: what is asked.
        limit: characters of a quoted passage.

    Returns:
        The text, and the characters that were cut.

    >>> render(JudgeQuestion("", (("Q: ", False), ("abcdef", True)), (), ("a", "b")), 4)
    ('Q: ab [...] ef', 2)
    """
    cut = 0
    parts: list[str] = []
    for text, quoted in (*question.shared, *question.rest):
        if quoted and len(text) > limit:
            cut += len(text) - limit
            text = f"{text[: limit - limit // 2]} [...] {text[len(text) - limit // 2 :]}"
        parts.append(text)
    return "".join(parts), cut


def verdict_schema(labels: Sequence[str], *, comment: bool) -> dict[str, Json]:
    """JSON schema of a reply: the verdict is one of the labels, the reasons come before it."""
    properties: dict[str, Json] = {"reasons": {"type": "string"}} if comment else {}
    properties["verdict"] = {"type": "string", "enum": list(labels)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _form(labels: Sequence[str], *, comment: bool) -> str:
    """The reply's form in words, for endpoints that do not enforce a schema."""
    allowed = ", ".join(json.dumps(label) for label in labels)
    reasons = '"reasons" with your reasons in at most three sentences, then ' if comment else ""
    return f'Reply with one JSON object: {reasons}"verdict" with one of {allowed}.'


def read_verdict(text: str, labels: Sequence[str]) -> tuple[str | None, str, str]:
    """Label, reason for having none, and comment of a reply.

    A JSON object (also as one Markdown code block) with one allowed `verdict`, or the bare label.

    >>> read_verdict('{"reasons": "B rambles.", "verdict": "A"}', ["A", "B"])
    ('A', '', 'B rambles.')
    >>> read_verdict("I prefer A, no B", ["A", "B"])
    (None, 'invalid JSON', '')
    """
    text = text.strip()
    if not text:
        return None, EMPTY, ""
    bare = _label(text, labels)
    if bare is not None:
        return bare, "", ""
    block = _BLOCK.match(text)
    try:
        found = json.loads(block[1] if block else text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None, INVALID_JSON, ""
    if not isinstance(found, dict) or "verdict" not in found:
        return None, NO_VERDICT, ""
    reasons = found.get("reasons")
    comment = reasons[:_COMMENT] if isinstance(reasons, str) else ""
    given = found["verdict"]
    label = None if isinstance(given, bool) else _label(str(given), labels)
    return (label, "", comment) if label is not None else (None, WRONG_LABEL, comment)


def _label(text: str, labels: Sequence[str]) -> str | None:
    return next((x for x in labels if x.casefold() == text.strip().casefold()), None)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object that names a key twice says two things: it is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _problem(text: str, labels: Sequence[str]) -> str:
    reason = read_verdict(text, labels)[1]
    # an object without its end was most likely cut by the limit on the reply's tokens
    return CUT_OFF if reason == INVALID_JSON and _unfinished(text) else reason


def _unfinished(text: str) -> bool:
    start = text.lstrip()
    return start.startswith("{") and not start.rstrip().endswith("}")


def _verdict(reply: Reply, labels: Sequence[str], cut: int) -> JudgeVerdict:
    label, reason, comment = None, reply.reason, ""
    if reply.text is not None:
        label, reason, comment = read_verdict(reply.text, labels)
    return JudgeVerdict(
        label,
        reason=reason,
        comment=comment,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        seconds=reply.seconds,
        attempts=reply.attempts,
        cut=cut,
    )


def open_endpoint(settings: LlmJudgeSettings) -> EndpointJudge:
    """A judge at the endpoint of the settings.

    Raises:
        ModelError: the key cannot be sent.
    """
    return EndpointJudge(Endpoint(settings))
