"""Engines that write elsewhere: any OpenAI-compatible server, and vLLM started for the purpose.

Knows nothing of this server's clients.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import cast

import httpx2

from litee.errors import InputError, ModelError, ResourceError
from litee.finetune.backbones import find_backbone
from litee.serve.api_settings import ServeSettings
from litee.serve.engines import Call, Piece

#: Variable with the key for the other server.
ENDPOINT_KEY = "LITEE_ENDPOINT_KEY"

#: Seconds until vLLM must answer.
VLLM_START = 900.0

#: Sampling value → its name in OpenAI's requests; servers may refuse the last one.
_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
}


class EndpointEngine:
    """Passes requests on to another server.

    Args:
        address: up to and with `/v1`.
        key: for the other server, "" for none; never logged.
        name: of the engine, for errors and `/health`.
        extras: whether it takes `repetition_penalty` (vLLM does, OpenAI does not).
        client: for tests.
    """

    counts = (0, 0)

    def __init__(
        self,
        address: str,
        key: str = "",
        *,
        name: str = "endpoint",
        extras: bool = False,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.name, self._extras = name, extras
        self._address = address.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(30.0, read=600.0)
        self._client = client or httpx2.AsyncClient(timeout=timeout)

    async def models(self) -> Sequence[str]:
        """What the other server has.

        Raises:
            ResourceError: it cannot be reached or does not answer as it should.
        """
        try:
            response = await self._client.get(f"{self._address}/models", headers=self._headers)
            response.raise_for_status()
            return tuple(str(one["id"]) for one in response.json()["data"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._unreachable(error) from error

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        """See `ChatEngine`; the other server's refusals come through as input errors."""
        body = self._body(call)
        usage: Mapping[str, int] = {}
        reason = ""
        try:
            async with self._client.stream(
                "POST", f"{self._address}/chat/completions", json=body, headers=self._headers
            ) as response:
                if response.status_code >= 400:
                    raise self._refused(response.status_code, await response.aread())
                async for chunk in _chunks(response):
                    usage = cast("Mapping[str, int]", chunk.get("usage") or usage)
                    for choice in cast("list[dict[str, object]]", chunk.get("choices") or []):
                        delta = cast("dict[str, object]", choice.get("delta") or {})
                        reason = str(choice.get("finish_reason") or reason)
                        if text := str(delta.get("content") or ""):
                            yield Piece(text)
        except (httpx2.HTTPError, ValueError, AttributeError) as error:
            raise self._unreachable(error) from error
        if not reason:
            raise ResourceError(f"the {self.name} broke off in the middle of an answer")
        yield Piece(
            "", reason, int(usage.get("completion_tokens", 0)), int(usage.get("prompt_tokens", 0))
        )

    def _body(self, call: Call) -> dict[str, object]:
        sampling = call.sampling
        body: dict[str, object] = {
            "model": call.model,
            "messages": [{"role": m.role, "content": m.text} for m in call.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_new_tokens,
            "seed": sampling.seed,
        }
        for own, theirs in _NAMES.items():
            if own in call.given or self._extras or own != "repetition_penalty":
                body[theirs] = getattr(sampling, own)
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body

    def _refused(self, status: int, raw: bytes) -> InputError | ResourceError:
        try:
            message = str(json.loads(raw)["error"]["message"])[:200]
        except (ValueError, KeyError, TypeError):
            message = f"status {status}"
        if status in (400, 404, 413, 422):
            return InputError(f"the {self.name} refused: {message}", fix="change the request")
        return ResourceError(f"the {self.name} failed: {message}", fix="see its log")

    def _unreachable(self, error: Exception) -> ResourceError:
        kind = type(error).__name__
        fix = "check that it runs and that its address is right"
        return ResourceError(f"the {self.name} does not answer as it should ({kind})", fix=fix)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _chunks(response: httpx2.Response) -> AsyncGenerator[dict[str, object], None]:
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data:
            continue
        if data == "[DONE]":
            return
        yield json.loads(data)


class VllmEngine(EndpointEngine):
    """Starts vLLM's own server on a free port of this machine and passes requests on to it.

    Args:
        settings: which model.
        adapters: name → folder, served as models.
        name: of the model for clients.

    Raises:
        ModelError: vLLM is not installed, or it does not start.
    """

    def __init__(
        self, settings: ServeSettings, adapters: Mapping[str, Path], *, name: str = ""
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ModelError(
                "engine = vllm, and vllm is not installed",
                fix="pip install vllm (Linux with a GPU), or use --engine transformers",
            )
        port = _free_port()
        super().__init__(f"http://127.0.0.1:{port}/v1", name="vllm", extras=True)
        command = vllm_command(settings, adapters, port=port, name=name)
        # the key variables stay out of a process that does not need them
        hidden = {ENDPOINT_KEY, "LITEE_API_KEYS"}
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        self._process = subprocess.Popen(command, env=environment)
        self._wait(port)

    def _wait(self, port: int) -> None:
        until = time.monotonic() + VLLM_START
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2.0).is_success:
                    return
            except httpx2.HTTPError:
                time.sleep(0.5)
        self._end()
        raise ModelError("vllm did not start", fix="see its messages above")

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    async def close(self) -> None:
        """Close the connections and end the server."""
        await super().close()
        await asyncio.to_thread(self._end)


def vllm_command(
    settings: ServeSettings, adapters: Mapping[str, Path], *, port: int, name: str = ""
) -> list[str]:
    """How vLLM's server is started."""
    folder = find_backbone(settings.backbone).path
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", name or Path(settings.backbone).name]
    if settings.dtype != "auto":
        command += ["--dtype", settings.dtype]
    if adapters:
        command += ["--enable-lora", "--lora-modules"]
        command += [f"{adapter}={path}" for adapter, path in adapters.items()]
    return command


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
