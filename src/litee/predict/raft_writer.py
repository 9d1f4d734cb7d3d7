"""A writer of RAFT questions and answers: a chat model on this machine.

Knows nothing of chunks, quotes and files.
"""

from __future__ import annotations

from collections.abc import Sequence

from litee.encode.raft_writing import Written
from litee.predict.generation import Engine, Request, write_answers
from litee.predict.generation_model import GenerationModel
from litee.predict.generation_prompts import Prompt
from litee.predict.generation_sampling import Sampling
from litee.predict.generation_settings import GenerateSettings
from litee.records import Message


class LocalWriter:
    """Asks a chat model on this machine.

    Args:
        settings: which model, and how it samples.
    """

    def __init__(self, settings: GenerateSettings) -> None:
        model = GenerationModel(settings)
        sampled = f"{settings.temperature} {settings.top_p} {settings.seed}"
        self.name = f"{model.folder.name} {model.folder.sha256} {sampled}"
        self._settings = settings
        self._engine = Engine(
            model, max_batch=settings.max_batch, max_batch_tokens=settings.max_batch_tokens
        )

    def write(self, prompts: Sequence[str]) -> list[Written]:
        """One text per prompt; one that was cut off counts, its checks come later."""
        seed = self._settings.seed
        requests = [
            Request(
                (Message("user", prompt),),
                Sampling.of(self._settings, seed=self._own(prompt, seed)),
            )
            for prompt in prompts
        ]
        return [Written(written.text) for written in write_answers(self._engine, requests)]

    @staticmethod
    def _own(prompt: str, seed: int) -> int:
        """A seed of the prompt's own, so that a text does not depend on what else is asked."""
        return Prompt("", (prompt,)).seed(seed, 0, 0)
