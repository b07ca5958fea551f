"""The HTTP side: endpoints, what they are guarded by, and how their answers go out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse

from semanticspec import __version__
from semanticspec.decoding.pair import Pair
from semanticspec.server.api.errors import as_api_error, install_handlers
from semanticspec.server.api.guards import ApiKeyGuard, BodyLimit, LocalNames, is_local
from semanticspec.server.api.schemas import ChatRequest, CompletionRequest, ErrorAnswer
from semanticspec.server.page import page_response
from semanticspec.server.service import Accepted, Service, shutting_down
from semanticspec.server.settings import ServerSettings

_CLIENT_IS_GONE = 499
"""Nobody reads this status; it is the one that logs of web servers have for it."""

# What OpenAPI tells of answers. Those to the endpoints that generate are OpenAI's own, see `replies`.
_FAILURES: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}
_GENERATED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "whole, or streamed"}
}
_FOR_PROMETHEUS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}


def create_app(pair: Pair, settings: ServerSettings) -> FastAPI:
    """The application that serves a pair. Its `state.service` is what stands behind it.

    Raises:
        ConfigError, ProbeError: the pair cannot do what the settings say.
    """
    service = Service(pair, settings)
    # No /docs: FastAPI's page loads scripts from elsewhere.
    app = FastAPI(
        title="semanticspec", version=__version__, docs_url=None, redoc_url=None, responses=_FAILURES
    )
    app.state.service = service
    install_handlers(app)
    _add_generation(app, service)
    _add_information(app, service)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.api_key is not None:
        app.add_middleware(ApiKeyGuard, api_key=settings.api_key)
    elif is_local(settings.host):
        app.add_middleware(LocalNames)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=None, responses=_GENERATED)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answers a chat."""
        return await _answer(await service.accept(body), request, stream=body.stream)

    @app.post("/v1/completions", response_model=None, responses=_GENERATED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Goes on with a text."""
        return await _answer(await service.accept(body), request, stream=body.stream)


def _add_information(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_model_card(service)]}

    @app.get("/health", response_model=None)
    async def health() -> Response:
        """200 while requests are taken, 503 once the server shuts down."""
        return shutting_down().response() if service.draining else JSONResponse({"status": "ok"})

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @app.get("/metrics", response_model=None, responses=_FOR_PROMETHEUS)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False, response_model=None)
    async def page() -> Response:
        return page_response()


def _model_card(service: Service) -> dict[str, Any]:
    """As vLLM describes a model; `speculation` is ours, and what the page begins with."""
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "semanticspec",
        "root": service.pair.name,
        "max_model_len": service.max_model_len,
        "speculation": {"rule": service.config.rule.name, "strictness": service.config.rule.strictness},
    }


async def _answer(accepted: Accepted, request: Request, *, stream: bool) -> Response:
    if not stream:
        return await _whole(accepted, request)

    async def stop(_: Any) -> None:
        accepted.job.stop()

    # The stream stops the job when it is closed; a client that goes away before it has begun is told of by the handler.
    return EventSourceResponse(_stream(accepted), sep="\n", client_close_handler_callable=stop)


async def _stream(accepted: Accepted) -> AsyncGenerator[str, None]:
    """The data of every event: a chunk each, an error if there is one, and OpenAI's mark of the end."""
    try:
        for chunk in accepted.reply.beginning():
            yield _json(chunk)
        async with aclosing(accepted.job.updates()) as updates:
            async for update in updates:
                for chunk in accepted.reply.chunks(update):
                    yield _json(chunk)
    except Exception as error:
        yield _json(as_api_error(error).body())
    finally:
        accepted.job.stop()
    yield "[DONE]"


async def _whole(accepted: Accepted, request: Request) -> Response:
    """The answer in one piece; the work ends at once if nobody waits for it any more."""
    collecting = asyncio.create_task(_collect(accepted))
    watching = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait([collecting, watching], return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=_CLIENT_IS_GONE)
        return JSONResponse(collecting.result())
    finally:
        watching.cancel()
        collecting.cancel()
        accepted.job.stop()


async def _collect(accepted: Accepted) -> dict[str, Any]:
    async with aclosing(accepted.job.updates()) as updates:
        async for update in updates:
            accepted.reply.take(update)
    return accepted.reply.whole()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
