"""A call as a value: what to send, how to read the answer, and whether it may be sent twice. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from service.client.errors import InvalidArgument, ProblemError, ShrinkFaceError, UnexpectedAnswer
from service.client.models import Answer

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=Answer)

_PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        read: makes the result of a 2xx answer. Raises UnexpectedAnswer.
        repeatable: whether it may be sent again when the service may have done it already.
        params: of the query; None is left out, as in `form`.
        json: the body, or
        form, pictures: its parts: fields, and files by field name.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[tuple[str, bytes]] = ()

    def request(self) -> dict[str, Any]:
        """Arguments for httpx."""
        # A file's own name may be somebody's.
        files = [(name, ("picture", content, "application/octet-stream")) for name, content in self.pictures]
        return {
            "method": self.method,
            "url": self.path,
            "params": given(self.params),
            "headers": dict(self.headers),
            "json": self.json,
            "data": given(self.form) or None,
            "files": files or None,
        }

    def result(self, response: httpx.Response) -> T:
        """The result of an answer. Raises ProblemError, UnexpectedAnswer."""
        if not response.is_success:
            raise error_of(response)
        return self.read(response)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of many. `following` makes the call for those after them, or None at the end."""

    items: Sequence[T]
    following: Callable[[], Call[Page[T]] | None]


def connection(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments for an httpx client. Raises InvalidArgument for what is no HTTP address."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"{base_url!r} is no address of a service: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument(f"{base_url!r} is no address of a service, which begins with http:// or https://")
    headers = {"User-Agent": f"shrinkface/{version('shrinkface')}"}
    if api_key is not None:
        headers["X-API-Key"] = api_key
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def path_of(*segments: str) -> str:
    """A path under `/v1`.

    Raises:
        InvalidArgument: a segment is empty or dots alone, which would make it the path of something else.
    """
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidArgument(f"{segment!r} names nothing in the service")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def reading(model: type[AnswerT]) -> Callable[[httpx.Response], AnswerT]:
    """Reads a model from an answer."""

    def read(response: httpx.Response) -> AnswerT:
        return parsed(model, response.content)

    return read


def parsed(model: type[AnswerT], content: bytes) -> AnswerT:
    """A model from JSON. Raises UnexpectedAnswer."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        # Where and what kind, not the value: it may be somebody's name.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "beginning"
        raise UnexpectedAnswer(f"the answer is no {model.__name__}: {first['type']} at its {where}") from None


def error_of(response: httpx.Response) -> ShrinkFaceError:
    """What an answer that is no success means. Its body has been read."""
    if response.headers.get("content-type", "").partition(";")[0].strip() == _PROBLEM_MEDIA_TYPE:
        try:
            return ProblemError(response.json())
        except (ValueError, TypeError, AttributeError):
            pass
    return UnexpectedAnswer(f"the answer has status {response.status_code} and is no problem of the service")
