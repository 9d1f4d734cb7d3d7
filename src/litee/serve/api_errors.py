"""Errors of the API in the shape that OpenAI's clients understand.

Knows nothing of what failed; what a request held is never repeated at length.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from litee.errors import LiteeError

ErrorType = Literal["invalid_request_error", "rate_limit_error", "server_error"]

_logger = logging.getLogger("litee.serve")

#: How much of a value an error may show.
_SHOWN = 200


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error as OpenAI writes it."""

    error: ErrorBody


#: For the OpenAPI document: every route may refuse in these ways.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": words}
    for status, words in {
        400: "The request makes no sense.",
        401: "No or wrong key.",
        404: "No such model, route or judge.",
        405: "Another method is meant.",
        413: "The body is too large.",
        421: "The server is not known by that name.",
        429: "Too many requests.",
        500: "The server failed.",
    }.items()
}


class ApiError(Exception):
    """An error with its HTTP status.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        code: for programs, such as `model_not_found`.
        param: which field of the request.
        retry_after: seconds after which to come back.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    @property
    def type(self) -> ErrorType:
        """OpenAI's type of the error, from the status."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, dict[str, str | None]]:
        """What a client reads.

        >>> ApiError(404, "no such model", code="model_not_found").body()["error"]["code"]
        'model_not_found'
        """
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """As an HTTP response."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def from_litee(error: LiteeError) -> ApiError:
    """A project error as the client's: bad input is 400, all else is the server's 500."""
    status = 400 if error.exit_code in (2, 3) else 500
    text = error.problem if not error.fix else f"{error.problem}; {error.fix}"
    return ApiError(status, text[:_SHOWN])


def validation_message(errors: Sequence[Mapping[str, object]]) -> tuple[str, str | None]:
    """The first of pydantic's errors in words, and the path of its field.

    >>> validation_message([{"loc": ("body", "n"), "msg": "too big", "type": "x"}])
    ('n: too big', 'n')
    """
    first = errors[0]
    loc = first.get("loc", ())
    parts = [str(part) for part in loc] if isinstance(loc, tuple | list) else []
    path = ".".join(parts[1:] if parts[:1] == ["body"] else parts)[:_SHOWN]
    if first.get("type") == "json_invalid":
        return "the body is not valid JSON", None
    message = str(first.get("msg", "invalid")).removeprefix("Value error, ")[:_SHOWN]
    return (f"{path}: {message}", path) if path else (message, None)


def install_handlers(app: FastAPI) -> None:
    """Let every error of an application leave it in this shape."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(LiteeError)
    async def _litee(_: Request, error: LiteeError) -> JSONResponse:
        found = from_litee(error)
        if found.status >= 500:
            _logger.error("%s", error)
        return found.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        message, param = validation_message(error.errors())
        return ApiError(400, message, param=param).response()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "unknown_url", 405: "method_not_allowed"}
        found = ApiError(error.status_code, str(error.detail), code=codes.get(error.status_code))
        response = found.response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> JSONResponse:
        _logger.error("unexpected error", exc_info=error)
        return ApiError(500, "the server failed; its log says more").response()
