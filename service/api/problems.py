"""Domain errors to RFC 9457 problem+json. The only place that knows status codes of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from service.api.rendering import FastJSONResponse
from service.domain import DomainError

PROBLEM_MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:shrinkface:problem:"

STATUS_OF_CODE: Final[Mapping[str, tuple[int, str]]] = {
    "invalid-request": (422, "The request is not acceptable"),
    "request-malformed": (400, "The request is not valid HTTP"),
    "headers-too-large": (431, "The head of the request is too large"),
    "headers-timeout": (408, "The head of the request took too long to arrive"),
    "cursor-invalid": (400, "The cursor is not one that was handed out"),
    "body-invalid": (400, "The body cannot be read"),
    "body-too-large": (413, "The body is too large"),
    "body-timeout": (408, "The body took too long to arrive"),
    "media-type-unsupported": (415, "The body's media type is not supported"),
    "image-invalid": (422, "The picture cannot be used"),
    "image-empty": (400, "The picture is empty"),
    "image-format-unsupported": (415, "The picture's format is not supported"),
    "image-damaged": (422, "The picture is damaged"),
    "image-too-many-bytes": (413, "The picture has too many bytes"),
    "image-too-many-pixels": (413, "The picture has too many pixels"),
    "image-too-small": (422, "The picture is too small"),
    "image-animated": (422, "The picture is animated"),
    "base64-invalid": (400, "The picture is not valid base64"),
    "no-face": (422, "No face was found"),
    "several-faces": (422, "Several faces were found"),
    "quality-too-low": (422, "The face's quality is too low"),
    "attribute-unavailable": (422, "The attribute is not available here"),
    "embedding-invalid": (422, "The embedding is not valid"),
    "gallery-not-found": (404, "There is no such gallery"),
    "gallery-exists": (409, "The gallery exists already"),
    "person-not-found": (404, "There is no such person"),
    "person-exists": (409, "The person exists already"),
    "person-erased": (410, "The person has been erased"),
    "face-not-found": (404, "There is no such face"),
    "crop-not-kept": (404, "The crop was not kept"),
    "looks-like-another": (409, "Somebody else looks like the person"),
    "revision-mismatch": (412, "It has been changed in the meantime"),
    "idempotency-key-reused": (409, "The Idempotency-Key came with another request before"),
    "idempotency-in-progress": (409, "The request with this Idempotency-Key is being worked on"),
    "unauthenticated": (401, "An API key is needed"),
    "forbidden": (403, "The API key does not allow this"),
    "rate-limited": (429, "Too many requests"),
    "space-mismatch": (409, "The embeddings are of another model"),
    "migration-conflict": (409, "The change of model is not at that point"),
    "migration-unsupported": (409, "The model cannot be changed while the service runs"),
    "overloaded": (503, "The service is overloaded"),
    "gallery-unavailable": (503, "The gallery does not answer"),
    "not-ready": (503, "The service is not ready"),
    "storage-full": (507, "The storage is full"),
    "storage-unusable": (500, "The storage cannot be used"),
    "not-found": (404, "There is nothing at this path"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "internal-error": (500, "The service failed"),
}
_CODE_OF_HTTP_STATUS = {404: "not-found", 405: "method-not-allowed"}

_log = structlog.get_logger()


class Problem(BaseModel):
    """Body of every error answer (RFC 9457); further members depend on the type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable name of the kind of problem.", examples=["urn:shrinkface:problem:no-face"])
    title: str
    status: int
    detail: str
    request_id: str


class BodyInvalid(DomainError):
    """The body is not what its media type says, or has the wrong parts."""

    code = "body-invalid"


class BodyTooLarge(DomainError):
    """The body is over the byte limit."""

    code = "body-too-large"


class BodyTimeout(DomainError):
    """The body did not arrive in time."""

    code = "body-timeout"


class MediaTypeUnsupported(DomainError):
    """The body is neither multipart/form-data nor JSON."""

    code = "media-type-unsupported"


class CursorInvalid(DomainError):
    """The cursor is not one of ours."""

    code = "cursor-invalid"


def problem_body(request_id: str, code: str, detail: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Members of a problem; a code that has no status of its own counts as an internal error."""
    status, title = STATUS_OF_CODE.get(code, STATUS_OF_CODE["internal-error"])
    return {
        **(details or {}),
        "type": _TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }


def problem_response(request_id: str, code: str, detail: str, details: Mapping[str, Any] | None = None) -> Response:
    """One problem+json answer."""
    body = problem_body(request_id, code, detail, details)
    status: int = body["status"]
    headers = {"Retry-After": str(body["retry_after_s"])} if "retry_after_s" in body else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return FastJSONResponse(body, status_code=status, media_type=PROBLEM_MEDIA_TYPE, headers=headers)


# What a call with a body may be answered.
BODY_PROBLEMS = ("body-invalid", "body-too-large", "body-timeout", "media-type-unsupported", "invalid-request")
# What any call under an API key may be answered.
_ANYWHERE = ("unauthenticated", "forbidden", "rate-limited", "overloaded", "not-ready", "internal-error")


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems that a route may answer with, beside those that any may."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys((*codes, *_ANYWHERE)):
        status, title = STATUS_OF_CODE[code]
        entry = by_status.setdefault(
            status, {"description": "", "content": {PROBLEM_MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
        )
        entry["description"] = (f"{entry['description']}; " if entry["description"] else "") + f"`{code}`: {title}"
    return by_status


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Register the handlers.

    Args:
        app: to register them with.
        routes: of the application, which say what may be asked instead of a method that is not allowed.
    """

    @app.exception_handler(DomainError)
    async def on_domain_error(request: Request, error: DomainError) -> Response:
        status = STATUS_OF_CODE.get(error.code, STATUS_OF_CODE["internal-error"])[0]
        if status == 500:
            _log.error("request failed", problem=error.code, reason=error.message)
        return problem_response(request.state.request_id, error.code, error.message, error.details)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return problem_response(
            request.state.request_id, "invalid-request", "a parameter is not acceptable", field_errors(error.errors())
        )

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        code = _CODE_OF_HTTP_STATUS.get(error.status_code, "invalid-request")
        response = problem_response(request.state.request_id, code, str(error.detail))
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(sorted(_methods_at(request.scope, routes)))
        return response

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, error: ClientDisconnect) -> Response:
        # Nobody is there to read it; the answer only ends the request in an orderly way.
        return problem_response(request.state.request_id, "body-invalid", "the client went away")


def _methods_at(scope: Scope, routes: Sequence[BaseRoute]) -> set[str]:
    """Methods of all routes of a path; the router itself names those of the first one only."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE:
            methods |= route.methods or set()
    return methods


def field_errors(errors: Any) -> dict[str, Any]:
    """Pydantic's list of errors as `errors`: where and why, without echoing the value that was sent."""
    return {
        "errors": [
            {"field": ".".join(str(part) for part in error["loc"]), "message": error["msg"]} for error in errors
        ][:20]
    }
