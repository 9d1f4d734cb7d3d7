"""A local chat model that writes replies in a JSON form, greedily.

Small models often miss the form; such a reply has its reason. Knows nothing of metrics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from litee.errors import InputError
from litee.predict.generation import Engine, Request, write_answers
from litee.predict.generation_model import GenerationModel
from litee.predict.generation_sampling import Sampling
from litee.predict.generation_settings import ModelSettings
from litee.records import Message
from litee.rundir import Json
from litee.score.endpoint import CUT_OFF, EMPTY, Reply
from litee.score.llm_judge_settings import LlmJudgeSettings
from litee.score.retrieval_writers import Check


class LocalWriter:
    """Writes with a model on this machine, one reply after the other.

    Args:
        settings: `model` and `max_reply_tokens` are used.

    Raises:
        ModelError: the model cannot be loaded.
    """

    at_once = 1

    def __init__(self, settings: LlmJudgeSettings) -> None:
        model = GenerationModel(ModelSettings(backbone=settings.model))
        self._engine = Engine(model)
        self._sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=settings.max_reply_tokens,
        )
        self.id = f"{model.folder.sha256}/greedy/{settings.max_reply_tokens}"

    def write(self, prompt: str, schema: Mapping[str, Json], check: Check) -> Reply:
        """A reply to one prompt; the form is only asked for in the prompt."""
        started = time.monotonic()
        request = Request((Message("user", prompt),), self._sampling)
        try:
            (written,) = write_answers(self._engine, [request])
        except InputError as error:
            return Reply(None, error.problem, seconds=time.monotonic() - started)
        reason = check(written.text) if written.text.strip() else EMPTY
        if reason and written.finish_reason == "length":
            reason = CUT_OFF
        return Reply(
            None if reason else written.text,
            reason,
            written.prompt_tokens,
            written.tokens,
            time.monotonic() - started,
        )
