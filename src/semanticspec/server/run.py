"""Runs the application under uvicorn, with a graceful shutdown that has a time limit."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus

from semanticspec.decoding.pair import Pair
from semanticspec.server.api.errors import shutdown_error
from semanticspec.server.app import create_app
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings

_CLOSE_STREAMS_S = 5.0
"""How long uvicorn waits for streams to end after their jobs were stopped."""


class GracefulServer(uvicorn.Server):
    """After the first signal, rejects new requests and stops running ones that exceed the time limit."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal: rejects new requests from now on."""
        self.service.draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the sockets and waits for running requests, see `uvicorn.Server.shutdown`."""
        self.service.draining = True
        stop_late_jobs = asyncio.create_task(self._stop_late_jobs())
        try:
            await super().shutdown(sockets)
        finally:
            stop_late_jobs.cancel()

    async def _stop_late_jobs(self) -> None:
        await asyncio.sleep(self.service.settings.shutdown_timeout_s)
        self.service.stop_all(shutdown_error())


def make_server(pair: Pair, settings: ServerSettings) -> GracefulServer:
    """Returns a server to be run with `await server.serve()`.

    Raises:
        ConfigError, ProbeError, EngineError: the pair cannot run with these settings.
    """
    # By default sse-starlette ends every stream at the first signal.
    AppStatus.enable_automatic_graceful_drain = False
    app = create_app(pair, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=round(settings.shutdown_timeout_s + _CLOSE_STREAMS_S),
    )
    return GracefulServer(config, app.state.service)


def run_server(pair: Pair, settings: ServerSettings) -> None:
    """Serves until a signal arrives, then closes the pair."""
    asyncio.run(_serve(pair, settings))


async def _serve(pair: Pair, settings: ServerSettings) -> None:
    try:
        await make_server(pair, settings).serve()
    finally:
        await pair.aclose()
