"""Whole galleries as streams of lines: what both clients need to know of them, without sending anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from service.client.calls import given, parsed, path_of
from service.client.errors import ImportStopped, UnexpectedAnswer
from service.client.models import ImportOutcome, ImportSummary

_NDJSON = "application/x-ndjson"
_MAX_LINE_BYTES = 128_000_000
_PIECE_BYTES = 65_536
# Of an import: its answer comes when all is stored.
_PATIENCE_S = 600.0


class Lines:
    """Puts lines together from the pieces of a stream."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def of(self, piece: bytes) -> Iterator[bytes]:
        """Lines that end in this piece, without their ends. Raises UnexpectedAnswer when one never seems to end."""
        first, *others = piece.split(b"\n")
        self._begun += first
        if len(self._begun) > _MAX_LINE_BYTES:
            raise UnexpectedAnswer(f"a line has more than {_MAX_LINE_BYTES:,} bytes")
        for following in others:
            yield bytes(self._begun)
            self._begun = bytearray(following)

    def end(self) -> None:
        """Raises UnexpectedAnswer when the stream ended within a line."""
        if self._begun:
            raise UnexpectedAnswer("the stream ends within a line")


class Download:
    """An export that goes on where it broke off.

    Attributes:
        moved: whether a line has come since `request`.
    """

    def __init__(self, gallery: str, after: str | None) -> None:
        self._path = path_of("galleries", gallery, "export")
        self._after = after
        self._lines = Lines()
        self.moved = False

    def request(self) -> dict[str, Any]:
        """Arguments for httpx: for all behind the last person whose line came."""
        self._lines = Lines()
        self.moved = False
        return {"method": "GET", "url": self._path, "params": given({"after": self._after})}

    def lines(self, piece: bytes) -> Iterator[bytes]:
        """Persons whose line ends in this piece. Raises UnexpectedAnswer."""
        for line in self._lines.of(piece):
            try:
                person_id = json.loads(line)["person_id"]
            except (ValueError, TypeError, LookupError):
                raise UnexpectedAnswer("a line of the export is no person") from None
            self.moved = True
            self._after = person_id
            yield line

    def end(self) -> None:
        """Raises UnexpectedAnswer when the export ended within a line."""
        self._lines.end()


class Upload:
    """An import's request, and its answer line by line."""

    def __init__(self, gallery: str) -> None:
        self._path = path_of("galleries", gallery, "import")
        self._lines = Lines()
        self._last: bytes | None = None

    def request(self, content: Any, timeout_s: float) -> dict[str, Any]:
        """Arguments for httpx."""
        return {
            "method": "POST",
            "url": self._path,
            "headers": {"Content-Type": _NDJSON},
            "content": content,
            "timeout": max(timeout_s, _PATIENCE_S),
        }

    def outcomes(self, piece: bytes) -> Iterator[ImportOutcome]:
        """Outcomes whose line ends in this piece. Raises UnexpectedAnswer."""
        for line in self._lines.of(piece):
            # The last line is the summary; until another follows, any may be it.
            last, self._last = self._last, line
            if last is not None:
                yield parsed(ImportOutcome, last)

    def summary(self) -> ImportSummary:
        """The end of the answer. Raises ImportStopped, UnexpectedAnswer."""
        self._lines.end()
        try:
            content = json.loads(self._last or b"")
            summary = ImportSummary.model_validate(content["summary"])
            problem = content["problem"]
        except (ValueError, TypeError, LookupError, ValidationError):
            raise UnexpectedAnswer("the import's answer does not end with a summary") from None
        if problem is not None:
            raise ImportStopped(problem, summary.model_dump())
        return summary


class _Gathering:
    """Lines, with or without their ends, on their way into pieces of a body that are worth sending."""

    def __init__(self) -> None:
        self._piece = bytearray()

    def add(self, line: bytes) -> bytes:
        """A piece, if there is enough for one by now."""
        self._piece += line if line.endswith(b"\n") else line + b"\n"
        return self.rest() if len(self._piece) >= _PIECE_BYTES else b""

    def rest(self) -> bytes:
        piece = bytes(self._piece)
        self._piece.clear()
        return piece


def pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The body of an import."""
    gathering = _Gathering()
    for line in lines:
        if piece := gathering.add(line):
            yield piece
    yield gathering.rest()


async def pieces_async(lines: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The body of an import, also of lines that are waited for."""
    gathering = _Gathering()
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            if piece := gathering.add(line):
                yield piece
        yield gathering.rest()
    else:
        for piece in pieces(lines):
            yield piece
