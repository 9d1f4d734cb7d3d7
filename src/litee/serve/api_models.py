"""What the API takes and gives: OpenAI's chat completions, and the judge's own requests.

Knows nothing of engines and judges.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from litee.records import Message, Pair


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class _Strict(BaseModel):
    """Unknown fields and NaN are errors: nothing that was asked for is ignored silently."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TextPart(_Strict):
    """A part of a message's content; only text is taken."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    """One message of a dialogue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: Text | None = None

    def record(self) -> Message:
        """As the project's record; `developer` counts as `system`."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(_Strict):
    """Only plain text can be asked for."""

    type: Literal["text"]


class _Sampled(_Strict):
    """What chat and best-of requests share; what is not given is the server's default."""

    model: Text = Field(max_length=300)
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Text | list[Text] | None = None
    n: int | None = Field(None, ge=1, le=1024)
    user: Text | None = None

    @model_validator(mode="after")
    def _stops(self) -> Self:
        stops = self.stops
        if len(stops) > 16 or not all(0 < len(stop) <= 1000 for stop in stops):
            raise ValueError("stop: at most 16 texts of 1 to 1,000 characters")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop texts, none when not given."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def limit(self) -> int | None:
        """Longest answer in tokens, None when not given."""
        given = self.max_completion_tokens
        return self.max_tokens if given is None else given


class ChatRequest(_Sampled):
    """Body of `POST /v1/chat/completions`."""

    stream: bool | None = False
    stream_options: StreamOptions | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    metadata: dict[str, str] | None = Field(None, max_length=16)
    store: bool | None = None


class BestOfRequest(_Sampled):
    """Body of `POST /v1/best-of`: n answers, of which the judge picks one."""

    n: int | None = Field(8, ge=1, le=1024)
    return_candidates: bool = False


Turns = Text | Annotated[list[Text], Field(min_length=1, max_length=256)]


class JudgePair(_Strict):
    """A prompt and two answers; lists are turns, one answer per user turn."""

    id: Text = Field("", max_length=300)
    prompt: Turns
    response_a: Turns
    response_b: Turns

    @model_validator(mode="after")
    def _turns_match(self) -> Self:
        _check_turns(self.prompt, self.response_a, self.response_b)
        return self

    def record(self, number: int) -> Pair:
        """As the project's record; without an id it gets its number."""
        prompt, a, b = map(_turns, (self.prompt, self.response_a, self.response_b))
        return Pair(self.id or str(number), prompt, a, b)


def _turns(text: str | list[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _check_turns(*texts: str | list[str]) -> None:
    if len({len(_turns(text)) for text in texts}) > 1:
        raise ValueError("prompt, response_a and response_b must have as many turns each")


class JudgeRequest(_Strict):
    """Body of `POST /v1/judge`: one pair in the fields themselves, or several in `pairs`."""

    pairs: list[JudgePair] | None = Field(None, min_length=1)
    id: Text = Field("", max_length=300)
    prompt: Turns | None = None
    response_a: Turns | None = None
    response_b: Turns | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        single = (self.prompt, self.response_a, self.response_b)
        if (self.pairs is None) != all(part is not None for part in single):
            raise ValueError("give either pairs, or prompt, response_a and response_b")
        if self.pairs is not None and any(part is not None for part in single):
            raise ValueError("give either pairs, or prompt, response_a and response_b")
        _check_turns(*(part for part in single if part is not None))
        return self

    def records(self) -> list[Pair]:
        """The pairs as records."""
        if self.pairs is not None:
            return [pair.record(k) for k, pair in enumerate(self.pairs)]
        assert self.prompt is not None
        assert self.response_a is not None
        assert self.response_b is not None
        one = JudgePair(
            id=self.id,
            prompt=self.prompt,
            response_a=self.response_a,
            response_b=self.response_b,
        )
        return [one.record(0)]


class Usage(BaseModel):
    """Tokens read and written; of the prompt only once, however many answers it got."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: Answer
    finish_reason: str
    logprobs: None = None


class ChatResponse(BaseModel):
    """OpenAI's `chat.completion`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Candidate(BaseModel):
    """An answer and what the judge thinks of it."""

    index: int
    message: Answer
    finish_reason: str
    reward: float


class BestOfResponse(ChatResponse):
    """A `chat.completion` of the best answer, with its reward."""

    reward: float
    n: int
    kl_bound_nats: float
    candidates: list[Candidate] | None = None


class ModelCard(BaseModel):
    """OpenAI's `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "litee"


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Probabilities(BaseModel):
    """P(A better), P(B better), P(tie); they sum to 1."""

    a: float
    b: float
    tie: float


class Judgement(BaseModel):
    """The judge's opinion on one pair."""

    id: str
    probabilities: Probabilities
    winner: str
    reward_a: float | None
    reward_b: float | None
    tokens_cut: tuple[int, int, int]


class JudgeResponse(BaseModel):
    """Judgements in the order of the pairs."""

    object: Literal["judgements"] = "judgements"
    model: str
    data: list[Judgement]


class Health(BaseModel):
    """Whether the server takes requests, and what waits."""

    status: Literal["ok", "stopping"]
    engine: str
    judge: str | None
    waiting: int
    writing: int
