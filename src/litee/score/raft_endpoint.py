"""A writer of RAFT questions and answers: an OpenAI-compatible endpoint.

Knows nothing of chunks, quotes and files; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from litee.encode.raft_writing import Written
from litee.score.endpoint import Endpoint
from litee.score.llm_judge_settings import LlmJudgeSettings


class EndpointWriter:
    """Asks an endpoint, several prompts at once; a failed one is a reason, not an error.

    Args:
        settings: `base_url` and `model` must be set.
    """

    def __init__(self, settings: LlmJudgeSettings) -> None:
        self.name = f"{settings.model} {settings.temperature} {settings.max_reply_tokens}"
        self._endpoint = Endpoint(settings)
        self._threads = settings.concurrency

    def write(self, prompts: Sequence[str]) -> list[Written]:
        """One text per prompt.

        Raises:
            ModelError: the endpoint refuses the key or does not know the address or the model.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._one, prompts))

    def _one(self, prompt: str) -> Written:
        reply = self._endpoint.chat([{"role": "user", "content": prompt}])
        return Written(reply.text or "", reply.reason)
