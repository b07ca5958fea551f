"""Runs the application under uvicorn, with a graceful shutdown that has a time limit."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import ExitStack
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus

from semanticspec.decoding.pair import Pair
from semanticspec.errors import ConfigError
from semanticspec.server.api.errors import shutdown_error
from semanticspec.server.app import create_app
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings

_LOGGER = logging.getLogger("uvicorn.error")
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept connections and logs the address, which uvicorn does only for sockets of its own."""
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _LOGGER.info("Uvicorn running on http://%s:%d (Press CTRL+C to quit)", shown, port)

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


def listen(host: str, port: int) -> socket.socket:
    """Binds an address. Connections are accepted once a server runs on the socket.

    Args:
        port: 0 picks a free one.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as on_failure:
            bound = on_failure.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart
            bound.bind(address)
            on_failure.pop_all()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "it is in use" if taken else error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {reason}; choose another --port or --host"
        ) from error
    return bound


def run_server(pair: Pair, settings: ServerSettings, listening: socket.socket) -> None:
    """Serves on a socket of `listen` until a signal arrives, then closes the pair."""
    asyncio.run(_serve(pair, settings, listening))


async def _serve(pair: Pair, settings: ServerSettings, listening: socket.socket) -> None:
    try:
        await make_server(pair, settings).serve([listening])
    finally:
        await pair.aclose()
