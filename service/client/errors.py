"""What a call may raise, beside OSError for a picture that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPE_PREFIX = "urn:shrinkface:problem:"
_MEMBERS = ("type", "title", "status", "detail", "request_id")


class ShrinkFaceError(Exception):
    """Base of all."""


class InvalidArgument(ShrinkFaceError, ValueError):
    """Nothing was sent: an argument is none that a service could be asked with."""


class PictureNotFetched(ShrinkFaceError):
    """Nothing was sent to the service: a picture is not at the address that was given, or takes too much to fetch."""


class Unreachable(ShrinkFaceError):
    """No whole answer came. Whether the service did what it was asked to is open; `__cause__` says what happened."""


class UnexpectedAnswer(ShrinkFaceError):
    """Neither what was asked for nor a problem: another server, a proxy's page, or a release that does not fit."""


class ProblemError(ShrinkFaceError):
    """The service says what is wrong (RFC 9457).

    Attributes:
        type: stable name of the kind of problem, such as `urn:shrinkface:problem:no-face`.
        extra: further members, which depend on the type.
        members: all, as they came.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem)
        self.members = dict(problem)
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.status = int(problem.get("status", 0))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.extra = {name: value for name, value in problem.items() if name not in _MEMBERS}

    @property
    def code(self) -> str:
        """The type without its prefix, such as `no-face`."""
        return self.type.removeprefix(_TYPE_PREFIX)

    def __str__(self) -> str:
        return f"{self.detail or self.title} ({self.code})"


class ImportStopped(ProblemError):
    """An import that ended early. What `summary` counts was stored; sending all again stores nothing twice."""

    def __init__(self, problem: Mapping[str, Any], summary: Mapping[str, int]) -> None:
        super().__init__(problem)
        self.args = (problem, summary)
        self.summary = dict(summary)
