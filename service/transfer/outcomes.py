"""The file in which an import notes what became of every person, and from which it goes on after an interruption."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from service.domain import InvalidRequest, StorageFull, StorageUnusable


class OutcomeFile:
    """NDJSON: a line that says what is imported where, then a line a person.

    Args:
        path: made when it does not exist; an existing one is continued.
        job: what is imported where; an existing file must be of the same.

    Raises:
        InvalidRequest: the file is that of another import, or no such file at all.
        StorageUnusable: it cannot be opened.
    """

    def __init__(self, path: Path, job: Mapping[str, str]) -> None:
        self._path = path
        self.done: frozenset[str] = frozenset()
        try:
            self._stream = path.open("a+b")
            self._stream.seek(0)
            size, seen = 0, []
            for line in self._stream:
                # A line that a kill cut short is written again.
                if line.endswith(b"\n"):
                    size += len(line)
                    seen.append(orjson.loads(line))
            self._stream.truncate(size)
        except OSError as error:
            raise StorageUnusable(f"the outcome file cannot be used: {error.strerror}", file=str(path)) from error
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"{path} is no outcome file of an import", field="outcomes") from error
        if not seen:
            self.write([job])
        elif seen[0] != dict(job):
            raise InvalidRequest(f"{path} belongs to another import; choose another outcome file", field="outcomes")
        self.done = frozenset(line["item"] for line in seen[1:] if line["status"] != "failed")

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines; they are on disk afterwards. Raises StorageFull."""
        try:
            self._stream.write(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise StorageFull("the outcome file found no room on the disk") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
