"""Runs the application under uvicorn, and ends it in order: what is at work may finish, within a time."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus

from semanticspec.decoding.pair import Pair
from semanticspec.server.app import create_app
from semanticspec.server.service import Service, shutting_down
from semanticspec.server.settings import ServerSettings

_LAST_WORDS_S = 5.0
"""What uvicorn waits for streams to end after their work was stopped."""


class GracefulServer(uvicorn.Server):
    """At the first signal takes nothing new, lets requests finish, and stops those that take too long."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs when the signal comes: refuses what arrives from now on."""
        self._service.draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server.shutdown`; it closes the sockets and waits for the answers."""
        self._service.draining = True
        stopping = asyncio.create_task(self._stop_late_ones())
        try:
            await super().shutdown(sockets)
        finally:
            stopping.cancel()

    async def _stop_late_ones(self) -> None:
        await asyncio.sleep(self._service.settings.shutdown_timeout_s)
        self._service.stop_all(shutting_down())


def make_server(pair: Pair, settings: ServerSettings) -> GracefulServer:
    """A server that is ready to be run with `await server.serve()`.

    Raises:
        ConfigError, ProbeError: the pair cannot do what the settings say.
    """
    # Left on, sse-starlette would cut every stream off at the first signal.
    AppStatus.enable_automatic_graceful_drain = False
    app = create_app(pair, settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=round(settings.shutdown_timeout_s + _LAST_WORDS_S),
    )
    return GracefulServer(config, app.state.service)


def run_server(pair: Pair, settings: ServerSettings) -> None:
    """Serves until a signal ends it."""
    asyncio.run(_serve(pair, settings))


async def _serve(pair: Pair, settings: ServerSettings) -> None:
    try:
        await make_server(pair, settings).serve()
    finally:
        await pair.aclose()
