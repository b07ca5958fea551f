"""Sends a job's output: as server-sent events, or as one response. A disconnect of the client stops the job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse

from semanticspec.server.api.errors import ApiError, as_api_error
from semanticspec.server.api.replies import Reply
from semanticspec.server.scheduling.jobs import Job

_CLIENT_CLOSED_REQUEST = 499
"""Only appears in logs. Source: nginx uses this status."""


def stream_response(job: Job, reply: Reply) -> Response:
    """Returns a response that streams the chunks as they are generated."""

    async def on_disconnect(_: Any) -> None:
        job.stop()  # also if the stream has not started, so that its generator is never closed

    return EventSourceResponse(_events(job, reply), sep="\n", client_close_handler_callable=on_disconnect)


async def whole_response(job: Job, reply: Reply, request: Request) -> Response:
    """Waits for all outputs and returns them in one response."""
    disconnect = asyncio.create_task(_stop_on_disconnect(job, request))
    try:
        async with aclosing(job.updates()) as updates:
            async for index, item in updates:
                reply.add(index, item)
    finally:
        disconnect.cancel()
    return JSONResponse(reply.response())


async def _events(job: Job, reply: Reply) -> AsyncGenerator[str, None]:
    """Yields the data of each event: the chunks, an error if there is one, and OpenAI's end marker."""
    try:
        for chunk in reply.first_chunks():
            yield _json(chunk)
        async with aclosing(job.updates()) as updates:
            async for index, item in updates:
                for chunk in reply.chunks(index, item):
                    yield _json(chunk)
    except Exception as error:
        yield _json(as_api_error(error).body())
    finally:
        job.stop()
    yield "[DONE]"


async def _stop_on_disconnect(job: Job, request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.stop(ApiError(_CLIENT_CLOSED_REQUEST, "the client closed the request"))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
