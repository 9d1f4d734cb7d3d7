"""Runs the API: loads engine and judge, takes a port, serves until told to stop.

Knows nothing of the command line.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from litee.errors import ConfigError
from litee.predict.judge import Judge
from litee.serve.api import create_api
from litee.serve.api_service import Service
from litee.serve.api_settings import ServeSettings
from litee.serve.batching import JudgeWorker
from litee.serve.engines import ChatEngine, NoEngine, TransformersEngine
from litee.serve.engines_remote import ENDPOINT_KEY, EndpointEngine, VllmEngine
from litee.serve.limits import Keys, check_exposure
from litee.serve.metrics import Metrics
from litee.serve.vote_server import listen


def make_service(
    settings: ServeSettings,
    *,
    adapters: Mapping[str, Path] | None = None,
    judge: str | None = None,
    name: str = "",
) -> Service:
    """Load what the settings ask for.

    Args:
        settings: engine, model, limits.
        adapters: name → folder; models of their own for clients.
        judge: folder or hub name, None for none.
        name: of the model for clients.

    Raises:
        ConfigError: there is nothing to serve, or adapters for an engine that takes none.
        ModelError: a model, adapter or judge cannot be loaded.
    """
    adapters = adapters or {}
    if settings.engine == "none" and judge is None:
        fix = "name a --judge, or an --engine"
        raise ConfigError("engine = none, and no judge: there is nothing to serve", fix=fix)
    if adapters and settings.engine not in ("transformers", "vllm"):
        fix = "leave the adapters out; the other server has its own models"
        raise ConfigError(f"engine = {settings.engine} takes no adapters", fix=fix)
    metrics = Metrics()
    worker = None
    if judge is not None:
        found = Judge.from_pretrained(judge)
        worker = JudgeWorker(found, metrics, wait=settings.batch_wait_ms / 1000)
    try:
        engine = _engine(settings, adapters, metrics, name)
    except BaseException:
        if worker is not None:
            worker.close()
        raise
    judge_name = Path(judge).name if judge is not None else ""
    return Service(settings, engine, metrics, judge=worker, judge_name=judge_name)


def _engine(
    settings: ServeSettings, adapters: Mapping[str, Path], metrics: Metrics, name: str
) -> ChatEngine:
    if settings.engine == "endpoint":
        return EndpointEngine(settings.endpoint, os.environ.get(ENDPOINT_KEY, ""))
    if settings.engine == "vllm":
        return VllmEngine(settings, adapters, name=name)
    if settings.engine == "none":
        return NoEngine()
    return TransformersEngine(settings, adapters, metrics, name=name)


def serve_api(
    settings: ServeSettings,
    keys: Keys,
    *,
    adapters: Mapping[str, Path] | None = None,
    judge: str | None = None,
    name: str = "",
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM; answers in writing get `shutdown_seconds` to end.

    Args:
        settings: engine, model, limits, address.
        keys: that let clients in; none is refused unless `host` is this machine's own.
        adapters: name → folder.
        judge: folder or hub name.
        name: of the model for clients.
        ready: called with the address when the port is taken and all is loaded.

    Raises:
        ConfigError: see `make_service`; other machines let in without keys.
        ResourceError: the port cannot be had.
    """
    check_exposure(settings, keys)
    sock = listen(settings.host, settings.port)
    try:
        service = make_service(settings, adapters=adapters, judge=judge, name=name)
        config = uvicorn.Config(
            create_api(service, keys),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        ready(f"http://{host}:{sock.getsockname()[1]}")
        # uvicorn finishes what is under way and then raises the signal again
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            uvicorn.Server(config).run(sockets=[sock])
        except KeyboardInterrupt:
            pass  # the usual way to stop
        finally:
            signal.signal(signal.SIGTERM, before)
            if not service.stopping:
                asyncio.run(service.close())
    finally:
        sock.close()
