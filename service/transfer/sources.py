"""Where the persons of an import come from. Every source is read once, from beginning to end, and may be long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from service.domain import DomainError, InvalidRequest, NewFace, PersonRecord
from service.transfer.lines import Parsed, PictureRecord, decoded

MAX_LINE_BYTES = 64_000_000
_MAX_PICTURES = 10_000


class Entry(NamedTuple):
    """One person to import, or why they cannot be.

    Attributes:
        label: says where in the source it stands; the same whenever the source is read.
        position: how far the source has been read by then, in its own units.
    """

    label: str
    position: int
    content: Parsed


class Source(Protocol):
    """Persons to import. `unit` and `total` are for telling how far an import has come."""

    unit: str
    total: int

    def entries(self, skip: frozenset[str]) -> Iterator[Entry]:
        """Those whose label is not to be skipped, in the same order every time."""


def source_of(path: Path, *, ids: Path | None, space_id: str, max_image_bytes: int) -> Source:
    """A folder, an .npy file, or else an NDJSON file.

    Raises:
        InvalidRequest: there is nothing of the kind, or ids are missing or left over.
    """
    if ids is not None and path.suffix != ".npy":
        raise InvalidRequest("ids go with an .npy file only", field="ids")
    if path.is_dir():
        return PictureFolder(path, max_image_bytes)
    if not path.is_file():
        raise InvalidRequest(f"there is no file or folder {path}", field="source")
    if path.suffix == ".npy":
        if ids is None:
            raise InvalidRequest("an .npy file needs a file of person ids, one a line", field="ids")
        return EmbeddingArray(path, ids)
    return LineFile(path, space_id)


class LineFile:
    """NDJSON, a person a line; see `lines`."""

    unit = "bytes"

    def __init__(self, path: Path, space_id: str) -> None:
        self._path = path
        self._space_id = space_id
        self.total = path.stat().st_size

    def entries(self, skip: frozenset[str]) -> Iterator[Entry]:
        """See `Source.entries`; empty lines are passed over."""
        number, position, inside = 0, 0, False
        with self._path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                position += len(line)
                whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                rest, inside = inside, not whole
                if rest:
                    # Of a line that was too long, and was reported with its beginning.
                    continue
                number += 1
                label = f"line {number}"
                if label in skip or not line.strip():
                    continue
                yield Entry(label, position, self._parsed(line) if whole else _too_long())

    def _parsed(self, line: bytes) -> Parsed:
        try:
            return decoded(line, self._space_id)
        except DomainError as error:
            return error


class PictureFolder:
    """A folder of folders of pictures: each is a person, named by the folder."""

    unit = "folders"

    def __init__(self, path: Path, max_image_bytes: int) -> None:
        self._folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        self._max_image_bytes = max_image_bytes
        self.total = len(self._folders)

    def entries(self, skip: frozenset[str]) -> Iterator[Entry]:
        """See `Source.entries`."""
        for position, folder in enumerate(self._folders, start=1):
            label = f"folder {folder.name}"
            if label not in skip:
                yield Entry(label, position, self._person(folder))

    def _person(self, folder: Path) -> Parsed:
        try:
            pictures = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        except OSError as error:
            return InvalidRequest(f"the folder cannot be read: {error.strerror}")
        if not pictures:
            return InvalidRequest("the folder holds no picture", field="images")
        if len(pictures) > _MAX_PICTURES:
            return InvalidRequest(f"the folder holds more than {_MAX_PICTURES} pictures", field="images")
        readers = tuple((picture.name, partial(self._read, picture)) for picture in pictures)
        return PictureRecord(folder.name, folder.name.replace("_", " "), {}, readers)

    def _read(self, picture: Path) -> bytes:
        try:
            with picture.open("rb") as stream:
                # One byte more than is allowed, for the limit to be noticed.
                return stream.read(self._max_image_bytes + 1)
        except OSError as error:
            raise InvalidRequest(f"the picture cannot be read: {error.strerror}", field="images") from error


class EmbeddingArray:
    """Embeddings (n, d) in an .npy file, and a text file of n person ids; an id may occur more than once.

    A face's id follows from its person and its embedding, so that a second import finds it there.
    """

    unit = "rows"

    def __init__(self, path: Path, ids: Path) -> None:
        try:
            self._rows = np.load(path, mmap_mode="r", allow_pickle=False)
            self._ids = ids.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, EOFError) as error:
            raise InvalidRequest(f"the embeddings or ids cannot be read: {error}", field="source") from error
        if self._rows.ndim != 2 or self._rows.dtype.kind != "f":
            raise InvalidRequest("the .npy file holds no table of floating-point numbers", field="source")
        if len(self._ids) != len(self._rows):
            raise InvalidRequest(f"there are {len(self._ids)} ids for {len(self._rows)} embeddings", field="ids")
        self.total = len(self._ids)

    def entries(self, skip: frozenset[str]) -> Iterator[Entry]:
        """See `Source.entries`."""
        for row, person_id in enumerate(self._ids):
            label = f"row {row}"
            if label in skip:
                continue
            embedding = np.array(self._rows[row], dtype=np.float32)
            digest = hashlib.blake2b(person_id.encode() + b"\0" + embedding.tobytes(), digest_size=16).hexdigest()
            record = PersonRecord(person_id, None, {}, (NewFace(f"f-{digest}", embedding, None),))
            yield Entry(label, row + 1, record)


def _too_long() -> InvalidRequest:
    return InvalidRequest(f"the line is longer than {MAX_LINE_BYTES} bytes")
