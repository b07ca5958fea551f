"""Middleware that checks requests before they reach an endpoint: API key, host name, body size."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semanticspec.server.api.errors import ApiError

PUBLIC_PATHS = frozenset({"/", "/health", "/version", "/favicon.ico"})
"""Paths that need no key: the page, which asks for the key, and what load balancers check."""

Check = Callable[[str, Headers], ApiError | None]
"""Returns why a request with this path and these headers is rejected; None if it may pass."""


class Guard:
    """Rejects the requests for which a check returns an error."""

    def __init__(self, app: ASGIApp, check: Check) -> None:
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._check(scope["path"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (error.response() if error is not None else self._app)(scope, receive, send)


def require_api_key(api_key: str) -> Check:
    """Returns a check for `Authorization: Bearer <api_key>`. Keys are compared in constant time."""

    def check(path: str, headers: Headers) -> ApiError | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1")  # how header bytes are decoded
        matches = hmac.compare_digest(given, api_key.encode()) and scheme.lower() == "bearer"
        if path in PUBLIC_PATHS or matches:
            return None
        return ApiError(
            401,
            "the API key is missing or wrong; send it as `Authorization: Bearer <key>`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    return check


def require_local_host(_: str, headers: Headers) -> ApiError | None:
    """Accepts only requests whose `Host` is a local name.

    Protects a local server without a key from DNS rebinding: a web page whose domain is made to resolve to this machine
    would otherwise count as same-origin in a browser.
    """
    if is_local(headers.get("host", "")):
        return None
    return ApiError(
        403,
        "without an API key this server accepts requests to localhost only; start it with --api-key to use other "
        "host names",
        code="foreign_host",
    )


def is_local(host: str) -> bool:
    """Returns whether a host, with or without a port, is a loopback address or `localhost`."""
    try:
        name = host if host == "::1" else urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


class BodyLimit:
    """Rejects bodies that are too long, whether or not they declare their length, before they are held in memory."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        declared_bytes = int(declared[:20]) if declared.isdecimal() else 0
        received_bytes = 0

        async def limited_receive() -> Message:
            nonlocal received_bytes
            if declared_bytes > self._max_bytes:
                raise self._error()
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_bytes:
                raise self._error()
            return message

        await self._app(scope, limited_receive, send)

    def _error(self) -> ApiError:
        return ApiError(
            413,
            f"the request body exceeds this server's limit of {self._max_bytes} bytes",
            code="body_too_long",
        )
