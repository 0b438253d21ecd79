"""CompreFace's error bodies. Only routes of this package answer with them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from service.api.problems import STATUS_OF_CODE, documented
from service.api.rendering import FastJSONResponse
from service.domain import DomainError

_MISSING_HEADER = 20
_SERVICE_NOT_FOUND = 10
_MISSING_PARAMETER = 33
_VIOLATION = 26
_UNDEFINED = 0

# Status, CompreFace's code, and its message where it has one of its own.
_ANSWERS: Final[Mapping[str, tuple[int, int, str | None]]] = {
    "missing-field": (400, 5, None),
    "missing-part": (400, 34, None),
    "invalid-request": (400, _VIOLATION, None),
    "quality-too-low": (400, _VIOLATION, None),
    "no-face": (400, 28, "No face is found in the given image"),
    "several-faces": (400, 31, "More than one face in the source image"),
    "image-invalid": (400, 21, None),
    "image-empty": (400, 21, None),
    "image-format-unsupported": (400, 21, None),
    "image-damaged": (400, 21, None),
    "image-too-many-bytes": (400, 21, None),
    "image-too-many-pixels": (400, 21, None),
    "image-too-small": (400, 21, None),
    "image-animated": (400, 21, None),
    "base64-invalid": (400, 21, "Provided value is not Base64"),
    "embedding-invalid": (400, _UNDEFINED, None),
    "body-invalid": (400, _UNDEFINED, None),
    "body-too-large": (413, _UNDEFINED, None),
    "body-timeout": (408, _UNDEFINED, None),
    "media-type-unsupported": (415, _UNDEFINED, None),
    "person-exists": (400, 43, "Subject already exists"),
    "person-not-found": (404, 42, None),
    "face-not-found": (404, 44, None),
    "crop-not-kept": (404, 11, None),
    "forbidden": (403, 1, None),
    "rate-limited": (429, _UNDEFINED, None),
    "overloaded": (503, 41, None),
    "not-ready": (503, 41, None),
    "gallery-unavailable": (503, 41, None),
    "storage-full": (507, _UNDEFINED, None),
}
_MEANINGS = {
    400: "Codes 5, 20, 21, 26, 28, 31, 33, 34, 43: the message says what is wrong",
    401: "Codes 20 and 10: there is no API key, or not one that the service knows",
    403: "Code 1: the API key does not allow this",
    404: "Codes 11, 42, 44: there is no such picture, subject or image",
    408: "The body took too long to arrive",
    413: "The body is too large",
    415: "The body's media type is not supported",
    429: "Too many requests",
    503: "Code 41: the service is overloaded or not ready",
    507: "The storage is full",
}
_FAILED = "Something went wrong, please try again"

_log = structlog.get_logger()


class CompreFaceError(BaseModel):
    """Body of every error answer of these calls."""

    message: str
    code: int = Field(description="CompreFace's number of the kind of error.", examples=[28])


class MissingPart(DomainError):
    """A multipart body lacks a file."""

    code = "missing-part"


class MissingField(DomainError):
    """A JSON body lacks a value."""

    code = "missing-field"


class CompreFaceRoute(APIRoute):
    """A route whose errors, those of authentication and of parameters too, are told as CompreFace would."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors caught."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except DomainError as error:
                return _told(request, error)
            except RequestValidationError as error:
                return _refused(error)

        return handler


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for statuses that a route may answer with, beside those that any may."""
    content = {"application/json": {"schema": CompreFaceError.model_json_schema()}}
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted({*statuses, 400, 401, 403, 429, 503})
    }
    # What nobody foresaw is caught further out, and told as everywhere.
    failure = documented()[500]
    return {**told, 500: {**failure, "content": {**failure["content"], **content}}}


def _told(request: Request, error: DomainError) -> Response:
    if error.code == "unauthenticated":
        if request.headers.get("x-api-key") is None and request.headers.get("authorization") is None:
            return _answer(401, _MISSING_HEADER, "Missing header: x-api-key", {"WWW-Authenticate": "Bearer"})
        return _answer(401, _SERVICE_NOT_FOUND, error.message, {"WWW-Authenticate": "Bearer"})
    return refusal(error)


def refusal(error: DomainError) -> Response:
    """An error of which it does not matter what was asked."""
    # What has no answer of CompreFace's keeps its status.
    elsewhere = STATUS_OF_CODE.get(error.code, STATUS_OF_CODE["internal-error"])[0]
    status, code, message = _ANSWERS.get(error.code, (elsewhere, _UNDEFINED, None))
    if status == 500:
        _log.error("request failed", problem=error.code, reason=error.message)
        message = _FAILED
    headers = {"Retry-After": str(error.details["retry_after_s"])} if "retry_after_s" in error.details else {}
    return _answer(status, code, message if message is not None else error.message, headers)


def _refused(error: RequestValidationError) -> Response:
    first = error.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "missing":
        return _answer(400, _MISSING_PARAMETER, f"Required parameter {name} is missing", {})
    return _answer(400, _VIOLATION, f"{name}: {first['msg']}", {})


def _answer(status: int, code: int, message: str, headers: Mapping[str, str]) -> Response:
    return FastJSONResponse({"message": message, "code": code}, status_code=status, headers=dict(headers))
