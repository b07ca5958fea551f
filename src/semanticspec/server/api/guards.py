"""What a request has to pass before it is read: the key, and the size of its body."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semanticspec.server.api.errors import ApiError

OPEN_PATHS = frozenset({"/", "/health", "/version", "/favicon.ico"})
"""Need no key: the page (which asks for it), and what a load balancer has to see."""


class ApiKeyGuard:
    """Asks for `Authorization: Bearer <key>`."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_right(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "the API key is missing or wrong; send it as `Authorization: Bearer <key>`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response()(scope, receive, send)

    def _is_right(self, headers: Headers) -> bool:
        """Takes as long for a key that is nearly right as for any other."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1")  # as headers are decoded
        return hmac.compare_digest(given, self._key) and scheme.lower() == "bearer"


class LocalNames:
    """Takes only requests that call this machine by a local name.

    A web page of a foreign name that its owner lets point here ("DNS rebinding") would otherwise count as the server's
    own in a browser. For servers without a key that are bound to this machine; such a page does not know a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_local(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            403,
            "without an API key this server answers to localhost only; start it with --api-key to use other names",
            code="foreign_host",
        )
        await error.response()(scope, receive, send)


def is_local(host: str) -> bool:
    """Whether a host, with its port or without, is a name of this machine that needs no look-up."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if host == "::1" or name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class BodyLimit:
    """Refuses bodies that are too long, told or not, before they are held in memory."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told[:20]) > self._max_bytes:
            await ApiError(413, self._message, code="body_too_long").response()(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    @property
    def _message(self) -> str:
        return f"the body is longer than the {self._max_bytes} bytes that this server takes"

    def _counted(self, receive: Receive) -> Receive:
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self._max_bytes:
                raise HTTPException(413, self._message)  # FastAPI lets no other error out of a body it reads
            return message

        return counted
