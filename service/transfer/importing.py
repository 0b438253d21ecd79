"""Persons from a source into a gallery, in large commits, each by itself: the bad are noted, the rest go on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from service.domain import DomainError, ImportOutcome, NewFace, PersonRecord
from service.identification import EnrolmentService
from service.ports import Gallery
from service.transfer.lines import PictureRecord
from service.transfer.outcomes import OutcomeFile
from service.transfer.sources import Entry, Source

_PERSONS_AT_ONCE = 2_048
# Pictures take a hundred times as long as embeddings, and a commit should not come once a minute.
_PICTURES_AT_ONCE = 64

Skipped = list[dict[str, Any]]


@dataclass(slots=True)
class ImportTotals:
    """Persons seen, of those whom nothing could be stored of, and faces stored and found there already."""

    persons: int = 0
    failed: int = 0
    added: int = 0
    present: int = 0
    pictures_skipped: int = 0


class Importer:
    """Imports into one gallery.

    Args:
        gallery, name: where to.
        service: turns pictures into faces, with the same demands as an enrolment.
        pictures_at_once: how many it may work on together.
    """

    def __init__(self, gallery: Gallery, name: str, service: EnrolmentService, *, pictures_at_once: int) -> None:
        self._gallery = gallery
        self._name = name
        self._service = service
        self._places = asyncio.Semaphore(pictures_at_once)

    async def run(
        self, source: Source, outcomes: OutcomeFile, progress: Callable[[int, ImportTotals], None]
    ) -> ImportTotals:
        """Import what the outcome file does not have yet.

        Args:
            source: who to import.
            outcomes: told of every person, after the commit that stored them.
            progress: called after every commit with the source's position and the totals so far.

        Raises:
            StorageFull, StorageUnusable, NotReady: the rest was not imported; a later run goes on from there.
        """
        totals = ImportTotals()
        entries = source.entries(outcomes.done)
        reading = asyncio.create_task(asyncio.to_thread(_next_batch, entries))
        try:
            while batch := await reading:
                # The next ones are read while these are stored.
                reading = asyncio.create_task(asyncio.to_thread(_next_batch, entries))
                lines = await self.store(batch, totals)
                await asyncio.to_thread(outcomes.write, lines)
                progress(batch[-1].position, totals)
        finally:
            await asyncio.gather(reading, return_exceptions=True)
        return totals

    async def store(self, batch: list[Entry], totals: ImportTotals) -> list[dict[str, Any]]:
        """Import some entries in one commit, and add them to the totals; the outcome of each.

        Raises:
            StorageFull, StorageUnusable, NotReady, Overloaded: none of them was imported.
        """
        prepared = await asyncio.gather(*(self._prepared(entry) for entry in batch))
        records = [content for content, _ in prepared if isinstance(content, PersonRecord)]
        stored = iter(await self._gallery.import_persons(self._name, records) if records else [])
        lines = []
        for entry, (content, skipped) in zip(batch, prepared, strict=True):
            outcome = ImportOutcome(error=content) if isinstance(content, DomainError) else next(stored)
            lines.append(_line(entry, outcome, skipped))
            totals.persons += 1
            totals.failed += outcome.error is not None
            totals.added += outcome.added
            totals.present += outcome.present
            totals.pictures_skipped += len(skipped)
        return lines

    async def _prepared(self, entry: Entry) -> tuple[PersonRecord | DomainError, Skipped]:
        content = entry.content
        if not isinstance(content, PictureRecord):
            return content, []
        faces: dict[str, NewFace] = {}
        skipped: Skipped = []
        last: DomainError | None = None
        for label, read in content.pictures:
            try:
                async with self._places:
                    picture = await asyncio.to_thread(read)
                    face = await self._service.face_to_enrol(
                        picture, gallery=self._name, face_id=picture_face_id(picture)
                    )
            except DomainError as error:
                last = error
                skipped.append({"picture": label, "problem": error.code, "detail": error.message})
            else:
                # The same picture twice is one face.
                faces[face.face_id] = face
        if last is not None and not faces:
            return last, skipped
        return PersonRecord(content.person_id, content.name, content.metadata, tuple(faces.values())), skipped


def picture_face_id(picture: bytes) -> str:
    """The id of the face of a picture, the same whenever it is imported."""
    return f"f-{hashlib.blake2b(picture, digest_size=16).hexdigest()}"


def _next_batch(entries: Iterator[Entry]) -> list[Entry]:
    batch: list[Entry] = []
    pictures = 0
    for entry in islice(entries, _PERSONS_AT_ONCE):
        batch.append(entry)
        if isinstance(entry.content, PictureRecord):
            pictures += len(entry.content.pictures)
        if pictures >= _PICTURES_AT_ONCE:
            break
    return batch


def _line(entry: Entry, outcome: ImportOutcome, skipped: Skipped) -> dict[str, Any]:
    line: dict[str, Any] = {"item": entry.label}
    if not isinstance(entry.content, DomainError):
        line["person_id"] = entry.content.person_id
    if outcome.error is not None:
        line |= {"status": "failed", "problem": outcome.error.code, "detail": outcome.error.message}
    else:
        line |= {
            "status": "stored" if outcome.added else "present",
            "added": outcome.added,
            "present": outcome.present,
        }
    return line | ({"skipped": skipped} if skipped else {})
