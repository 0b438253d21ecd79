"""A gallery as an NDJSON file that an import reads back to the same gallery."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from service.domain import PersonRecord, StorageFull
from service.ports import Gallery
from service.transfer.lines import encoded

_PERSONS_AT_ONCE = 1_000


async def export(
    gallery: Gallery, name: str, target: Path, *, space_id: str, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Write all persons of a gallery with their embeddings. Persons who come or go meanwhile may or may not be in it.

    Args:
        target: replaced in one step when everything is written; only its owner may read it.
        progress: called now and then with persons written and persons in all.

    Returns:
        Persons and faces written.

    Raises:
        GalleryNotFound.
        StorageFull: the file cannot be written; nothing is left of it.
    """
    total = (await gallery.summary(name)).persons
    persons = faces = 0
    after: str | None = None
    partial = target.with_name(f"{target.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                while page := await gallery.export_persons(name, after=after, limit=_PERSONS_AT_ONCE):
                    stream.write(await asyncio.to_thread(_lines, page, space_id))
                    after = page[-1].person_id
                    persons += len(page)
                    faces += sum(len(person.faces) for person in page)
                    progress(persons, max(total, persons))
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageFull(f"the export cannot be written: {error.strerror}", file=str(target)) from error
    return persons, faces


def _lines(page: list[PersonRecord], space_id: str) -> bytes:
    return b"".join(encoded(person, space_id) for person in page)
