"""Errors in OpenAI's format, and the status code of each error.

The server raises its own errors as `ApiError(status, ...)`. `as_api_error` assigns the status of all others.
"""

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


class ApiError(HTTPException):
    """An error response.

    Attributes:
        status_code, detail, headers: of the response; `detail` is the message.
        param: the field of the request that caused it, if any.
        code: stable identifier for programs.
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
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Returns the response body."""
        status = self.status_code
        return {
            "error": {
                "message": _escape_surrogates(self.detail),
                "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
                "param": _escape_surrogates(self.param) if self.param else None,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def shutdown_error() -> ApiError:
    """Returns the error that requests get while the server shuts down."""
    return ApiError(
        503, "the server is shutting down; retry later or on another server", code="shutting_down"
    )


def as_api_error(error: BaseException) -> ApiError:
    """Converts any error to one that clients may see. Details of internal errors go to the log only."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid_request(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, PromptError):
        return ApiError(400, str(error), param="prompt", code="invalid_prompt")
    if isinstance(error, ConfigError | ProbeError):
        return ApiError(400, str(error), code="invalid_setting")
    _log.error("a request failed", exc_info=error)
    if isinstance(error, SemanticSpecError):
        return ApiError(500, "the model failed; see the server's log for details", code="engine_error")
    return ApiError(500, "internal server error; see the server's log for details", code="internal_error")


def install_handlers(app: FastAPI) -> None:
    """Makes the application answer every error in OpenAI's format."""

    async def handle(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    for kind in (HTTPException, RequestValidationError, SemanticSpecError, Exception):
        app.add_exception_handler(kind, handle)


def _invalid_request(error: RequestValidationError) -> ApiError:
    """Reports one problem of a request body: the one with the most specific location."""
    problem = max(error.errors(), key=lambda problem: len(problem["loc"]))
    kind, location, message = problem["type"], problem["loc"], str(problem["msg"])
    if kind == "json_invalid":
        return ApiError(400, "the request body is not valid JSON", code="invalid_json")
    if kind == "value_error":  # raised by a validator of ours, with its own text
        message = str(problem["ctx"]["error"])
    elif location == ("body",):
        message = "the request body is not a JSON object; send one with `Content-Type: application/json`"
        return ApiError(400, message, code="invalid_json")
    name = ".".join(str(part) for part in location[1:] if not _is_union_member(part))
    if kind == "extra_forbidden":
        return ApiError(400, f"{name!r} is not supported", param=name, code="unsupported_field")
    return ApiError(400, f"{name}: {message}" if name else message, param=name, code="invalid_value")


def _is_union_member(part: object) -> bool:
    """Whether a part of a location is pydantic's name for one type of a union, not a field."""
    return part == "str" or str(part).startswith(("list[", "function-"))


def _escape_surrogates(text: str) -> str:
    """Escapes lone surrogates, which clients may send but JSON responses cannot contain."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
