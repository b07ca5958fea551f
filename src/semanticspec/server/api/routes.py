"""Endpoints of the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from semanticspec import __version__
from semanticspec.server.api.errors import shutdown_error
from semanticspec.server.api.replies import Reply
from semanticspec.server.api.schemas import ChatRequest, CompletionRequest, ErrorResponse
from semanticspec.server.api.streaming import stream_response, whole_response
from semanticspec.server.page import page_response
from semanticspec.server.service import Service

# Response descriptions for OpenAPI.
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}}
_GENERATED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "Whole or streamed."}
}
_PROMETHEUS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}

router = APIRouter(responses=_ERRORS)


def _get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_get_service)]


@router.post("/v1/chat/completions", response_model=None, responses=_GENERATED)
async def create_chat_completion(body: ChatRequest, request: Request, service: ServiceDependency) -> Response:
    """Answers a chat."""
    return await _generate(body, request, service)


@router.post("/v1/completions", response_model=None, responses=_GENERATED)
async def create_completion(
    body: CompletionRequest, request: Request, service: ServiceDependency
) -> Response:
    """Continues one or more texts."""
    return await _generate(body, request, service)


async def _generate(body: ChatRequest | CompletionRequest, request: Request, service: Service) -> Response:
    job = await service.submit(body)
    reply = Reply(body, job.specs, job.request_id, service.model_name)
    return stream_response(job, reply) if body.stream else await whole_response(job, reply, request)


@router.get("/v1/models")
async def list_models(service: ServiceDependency) -> dict[str, Any]:
    """Lists the served model. Fields as in vLLM; `speculation` is an addition that the page uses."""
    rule = service.config.rule
    model = {
        "id": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "semanticspec",
        "root": service.pair.name,
        "max_model_len": service.max_model_len,
        "speculation": {"rule": rule.name, "strictness": rule.strictness},
    }
    return {"object": "list", "data": [model]}


@router.get("/health", response_model=None)
async def check_health(service: ServiceDependency) -> Response:
    """Returns 200 while requests are accepted, 503 during shutdown."""
    return shutdown_error().response() if service.draining else JSONResponse({"status": "ok"})


@router.get("/version")
async def show_version() -> dict[str, str]:
    """Returns the version of semanticspec."""
    return {"version": __version__}


@router.get("/metrics", response_model=None, responses=_PROMETHEUS)
async def show_metrics(service: ServiceDependency) -> Response:
    """Returns metrics in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False, response_model=None)
async def show_page() -> Response:
    return page_response()
