"""A client for OpenAI-compatible chat endpoints that expects the worst of what it gets back.

Every reply has a time, a size and a number of attempts; what is unusable is a reply with a reason,
never an exception. The key comes from the environment, goes into one header and nowhere else.
Knows nothing of questions and verdicts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from litee.errors import ModelError
from litee.rundir import Json
from litee.score.llm_judge_settings import LlmJudgeSettings

#: Why there is no usable reply.
TIME_OUT, NO_CONNECTION, BROKEN = "time-out", "no connection", "invalid response"
EMPTY, TOO_LONG, REFUSED, CUT_OFF = "empty reply", "reply too long", "refusal", "reply cut off"

#: Bytes of a response body, and characters of the text in it, that are read at most.
MAX_BODY, MAX_TEXT = 1 << 18, 20_000

#: A Retry-After longer than this is not waited for in full.
_LONGEST_WAIT = 60.0
_BACKOFF = wait_random_exponential(multiplier=0.5, max=30)

#: Asking again cannot mend these: the address, the model's name or the key is wrong.
_FATAL = {401, 403, 404}
_WORTH_ANOTHER_TRY = {408, 409, 425, 429}

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: the model's text, None when there is no usable one.
        reason: why not; empty otherwise.
        tokens_in: tokens read over all attempts, as far as the endpoint told.
        tokens_out: tokens written.
        seconds: wall time, waits included.
        attempts: requests sent.
    """

    text: str | None
    reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    attempts: int = 1


class _Failure(Exception):
    """An attempt without a usable reply.

    Args:
        reason: as in `Reply`.
        again: how many attempts in all may be made when this happens; None for all of them.
        after: seconds that the endpoint asked to wait.
    """

    def __init__(
        self, reason: str, *, again: int | None = None, after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after = reason, again, after


class Endpoint:
    """Sends chats, one connection pool for all threads.

    Args:
        settings: `base_url` and `model` must be set.
        sleep: waits between attempts.

    Raises:
        ModelError: the key holds characters that no header can carry.
    """

    def __init__(
        self, settings: LlmJudgeSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        key = os.environ.get(settings.api_key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            fix = f"set {settings.api_key_env} to the key as the provider shows it"
            raise ModelError("the key has characters that cannot be sent", fix=fix)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(
            base_url=settings.base_url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx2.Timeout(settings.timeout),
            limits=httpx2.Limits(max_connections=settings.concurrency),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Json] | None = None,
        check: Callable[[str], str] = lambda text: "",
    ) -> Reply:
        """One reply, asked for again after failures as the settings allow.

        Args:
            messages: role and content of each.
            schema: JSON schema that the reply is to follow, as far as `structured` allows.
            check: reply → why it is unusable, "" when it is fine; such a reply is asked for once
                more.

        Raises:
            ModelError: the endpoint refuses the key or does not know the address or the model.
        """
        body = self._body(messages, schema)
        used = [0, 0]
        started = time.monotonic()
        retrying = Retrying(
            stop=self._stop,
            wait=_wait,
            sleep=self._sleep,
            retry=retry_if_exception_type(_Failure),
            reraise=True,
        )
        text: str | None = None
        reason = ""
        try:
            text = retrying(self._attempt, body, check, used)
        except _Failure as failure:
            reason = failure.reason
        attempts = int(retrying.statistics.get("attempt_number", 1))
        seconds = time.monotonic() - started
        return Reply(text, reason, used[0], used[1], seconds, attempts)

    def _stop(self, state: RetryCallState) -> bool:
        failure = state.outcome.exception() if state.outcome is not None else None
        allowed = 1 + self.settings.retries
        if isinstance(failure, _Failure) and failure.again is not None:
            allowed = min(allowed, failure.again)
        return state.attempt_number >= allowed

    def _body(self, messages: Sequence[Message], schema: Mapping[str, Json] | None) -> bytes:
        settings = self.settings
        body: dict[str, Json] = {
            "model": settings.model,
            "messages": [dict(m) for m in messages],
            settings.reply_tokens_name: settings.max_reply_tokens,
        }
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if schema is not None and settings.structured == "json_schema":
            form: Json = {"name": "reply", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif schema is not None and settings.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return json.dumps(body, ensure_ascii=True).encode()

    def _attempt(self, body: bytes, check: Callable[[str], str], used: list[int]) -> str:
        text = _read_body(self._post(body), used)
        problem = check(text)
        if problem:
            raise _Failure(problem, again=2)
        return text

    def _post(self, body: bytes) -> bytes:
        """The body of a successful response, read within the time-out as a whole."""
        end = time.monotonic() + self.settings.timeout
        headers = {"Content-Type": "application/json"}
        try:
            with self._client.stream(
                "POST", "chat/completions", content=body, headers=headers
            ) as response:
                self._check_status(response)
                parts: list[bytes] = []
                size = 0
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > MAX_BODY:
                        raise _Failure(TOO_LONG, again=2)
                    if time.monotonic() > end:
                        raise _Failure(TIME_OUT)
                return b"".join(parts)
        except httpx2.TimeoutException as error:
            raise _Failure(TIME_OUT) from error
        except httpx2.ConnectError as error:
            raise _Failure(NO_CONNECTION) from error
        except httpx2.DecodingError as error:
            raise _Failure(BROKEN, again=2) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _Failure(NO_CONNECTION) from error

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        if status in _FATAL:
            raise ModelError(
                f"the endpoint answers HTTP {status} for the model {self.settings.model!r}",
                place=self.settings.base_url,
                fix=f"check base_url, model and the key in {self.settings.api_key_env}",
            )
        worth = status >= 500 or status in _WORTH_ANOTHER_TRY
        after = _retry_after(response.headers.get("retry-after", ""))
        raise _Failure(f"HTTP {status}", again=None if worth else 1, after=after)


def _wait(state: RetryCallState) -> float:
    """As long as the endpoint asks; not at all after an unusable reply; else a growing time."""
    failure = state.outcome.exception() if state.outcome is not None else None
    if isinstance(failure, _Failure):
        if failure.after is not None:
            return min(failure.after, _LONGEST_WAIT)
        if failure.again is not None:
            return 0.0
    return float(_BACKOFF(state))


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header; a date counts as none.

    >>> _retry_after("2"), _retry_after("Fri, 31 Dec 1999 23:59:59 GMT")
    (2.0, None)
    """
    try:
        return max(0.0, float(value))
    except ValueError:
        return None


def _read_body(raw: bytes, used: list[int]) -> str:
    """Text of a chat completion; its tokens are added to `used`, whatever the text is worth.

    Raises:
        _Failure: there is no usable text.
    """
    try:
        body = json.loads(raw)
        for k, tokens in enumerate(_tokens(body.get("usage"))):
            used[k] += tokens
        choice = body["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        ended = choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _Failure(BROKEN, again=2) from error
    if refusal or ended == "content_filter":
        raise _Failure(REFUSED, again=2)
    if text is None or (isinstance(text, str) and not text.strip()):
        raise _Failure(CUT_OFF if ended == "length" else EMPTY, again=2)
    if not isinstance(text, str):
        raise _Failure(BROKEN, again=2)
    if len(text) > MAX_TEXT:
        raise _Failure(TOO_LONG, again=2)
    return text


def _tokens(usage: object) -> tuple[int, int]:
    """Tokens read and written; 0 where the endpoint does not say."""
    if not isinstance(usage, Mapping):
        return 0, 0
    found = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (
        n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else 0 for n in found
    )
    return read, written
