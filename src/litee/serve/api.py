"""The API: OpenAI's chat completions and models, the judge, best-of-n, health and metrics.

Knows nothing of how answers are written and judged, nor of keys and limits on the way here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp

from litee.serve.api_errors import REFUSALS, ApiError, install_handlers
from litee.serve.api_models import (
    BestOfRequest,
    BestOfResponse,
    ChatRequest,
    ChatResponse,
    Health,
    JudgeRequest,
    JudgeResponse,
    ModelCard,
    ModelList,
)
from litee.serve.api_service import Service, unless_gone
from litee.serve.api_streams import event_stream
from litee.serve.limits import Gate, Keys
from litee.serve.metrics import CONTENT_TYPE

_DESCRIPTION = (
    "OpenAI-compatible chat completions with adapters as models; a judge of answers; best-of-n."
)


def create_api(service: Service, keys: Keys) -> ASGIApp:
    """The application, behind its gate.

    Args:
        service: engine, judge and settings; closed when the application shuts down.
        keys: that let clients in.
    """
    return Gate(_routes(service), service.settings, keys, service.metrics)


def _routes(service: Service) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="litee serve",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=REFUSALS,
    )
    install_handlers(app)
    _add_chat(app, service)
    _add_judge(app, service)
    _add_state(app, service)
    return app


def _add_chat(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=ChatResponse)
    async def chat(body: ChatRequest, request: Request) -> Response | ChatResponse:
        """Answer a dialogue; with `stream` as server-sent events."""
        calls = await service.calls(body)
        if not body.stream:
            if body.stream_options is not None:
                raise ApiError(400, "only with stream", param="stream_options")
            return await unless_gone(request, service.complete(calls, body))
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = event_stream(service, calls, model=body.model, include_usage=usage)
        first = await anext(events)  # what is wrong with the request is said with a status

        async def rest() -> AsyncGenerator[bytes, None]:
            try:
                yield first
                async for event in events:
                    yield event
            finally:
                await events.aclose()

        return StreamingResponse(rest(), media_type="text/event-stream")

    @app.get("/v1/models")
    async def models() -> ModelList:
        """The models that can be asked; adapters are models."""
        return ModelList(data=[service.card(name) for name in await service.engine.models()])

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> ModelCard:
        """One model."""
        await service.check_model(model)
        return service.card(model)


def _add_judge(app: FastAPI, service: Service) -> None:
    @app.post("/v1/judge")
    async def judge(body: JudgeRequest, request: Request) -> JudgeResponse:
        """Calibrated probabilities and rewards for one or several pairs of answers."""
        return await unless_gone(request, service.judge_pairs(body))

    @app.post("/v1/best-of", response_model_exclude_none=True)
    async def best_of(body: BestOfRequest, request: Request) -> BestOfResponse:
        """Write n answers and return the one that the judge rewards most."""
        service.check_judge()
        calls = await service.calls(body)
        return await unless_gone(request, service.best_of(calls, body))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Whether the server takes requests."""
        return service.health()

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' format."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE)
