"""Errors as OpenAI's clients expect them: one object with message, type, parameter and code; never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from semanticspec.errors import ConfigError, ProbeError, PromptError, SemanticSpecError

_log = logging.getLogger(__name__)
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

_OWN = "Value error, "
"""What pydantic puts before the messages of our own checks."""


class ApiError(Exception):
    """A request that ends in an error status.

    Attributes:
        param: the field of the request that is at fault, if one is.
        code: for programs: a word that does not change.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object that tells it."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {
                "message": _encodable(self.message),
                "type": kind,
                "param": _encodable(self.param) if self.param else None,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def as_api_error(error: BaseException) -> ApiError:
    """Any error as one that may be shown to a client; what is the server's own fault goes to the log instead."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptError):
        return ApiError(400, str(error), param="prompt", code="invalid_prompt")
    if isinstance(error, ConfigError | ProbeError):
        return ApiError(400, str(error), code="invalid_setting")
    _log.error("a request failed", exc_info=error)
    if isinstance(error, SemanticSpecError):
        return ApiError(
            500, "the model failed while it worked; the server's log says why", code="engine_error"
        )
    return ApiError(500, "the server failed; its log says why", code="internal_error")


def install_handlers(app: FastAPI) -> None:
    """Has every error answered in this form."""

    async def on_error(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return invalid_request(error).response()

    async def on_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return ApiError(error.status_code, str(error.detail), headers=error.headers).response()

    for kind in (ApiError, SemanticSpecError, Exception):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def invalid_request(error: RequestValidationError) -> ApiError:
    """What is wrong with a request's body, and where; of several things, the one that is said most exactly."""
    fault = max(error.errors(), key=lambda fault: len(fault["loc"]))
    if fault["type"] == "json_invalid":
        return ApiError(400, "the body is no JSON", code="invalid_json")
    if fault["loc"] == ("body",) and not str(fault["msg"]).startswith(_OWN):
        message = "the body is no JSON object; send one, with `Content-Type: application/json`"
        return ApiError(400, message, code="invalid_json")
    name = ".".join(str(part) for part in fault["loc"][1:] if not _is_alternative(part))
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"{name!r} is not supported here", param=name, code="unsupported_field")
    message = str(fault["msg"]).removeprefix(_OWN)
    return ApiError(400, f"{name}: {message}" if name else message, param=name, code="invalid_value")


def _is_alternative(part: object) -> bool:
    """Whether a part of a location is pydantic's name for one of several types that a field can have."""
    return part == "str" or str(part).startswith(("list[", "function-"))


def _encodable(text: str) -> str:
    """A client may send half characters; they come back escaped instead of breaking the answer."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
