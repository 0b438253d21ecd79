"""Looking after what is stored: changing it, erasing it everywhere, telling a person what is known of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.domain import (
    GallerySettings,
    Person,
    PersonChange,
    PersonRecord,
    Removal,
    check_gallery_name,
    check_person_id,
)
from service.ports import EmbeddingCache, Gallery, GallerySummary, Journal, JournalEntry

# Digests that are taken out of the cache by one call.
_DIGESTS_AT_ONCE = 1_000
_MAX_DOSSIER_ENTRIES = 1_000
_SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure took away, and from where.

    Attributes:
        cache_entries: cached embeddings, and pictures that showed them, that went; None when the cache did not answer,
            and will let go of them later.
        answers: to repeatable requests that told of those who went.
    """

    removal: Removal
    cache_entries: int | None
    answers: int
    erased_at: datetime


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is stored of a person: themselves, their faces with embeddings and crops, and who did what with them."""

    person: Person
    record: PersonRecord
    entries: tuple[tuple[int, JournalEntry], ...]


class CustodyService:
    """Changes and erasures, each noted in the journal before it is acknowledged."""

    def __init__(self, gallery: Gallery, cache: EmbeddingCache, journal: Journal) -> None:
        self._gallery, self._cache, self._journal = gallery, cache, journal
        self._configuring = asyncio.Lock()

    async def create_gallery(self, gallery: str, settings: GallerySettings, *, actor: str) -> GallerySummary:
        """See `Gallery.create_gallery`."""
        summary = await self._gallery.create_gallery(check_gallery_name(gallery), settings)
        await self._note(actor, "gallery.create", gallery)
        return summary

    async def configure_gallery(
        self,
        gallery: str,
        change: Callable[[GallerySettings], GallerySettings],
        *,
        expected_revision: int | None,
        actor: str,
    ) -> GallerySummary:
        """Let a gallery have other settings than it has now; see `Gallery.configure_gallery`."""
        # Two changes of different settings at the same time must both be there afterwards.
        async with self._configuring:
            known = await self._gallery.summary(check_gallery_name(gallery))
            summary = await self._gallery.configure_gallery(
                gallery, change(known.settings), expected_revision=expected_revision
            )
        await self._note(actor, "gallery.configure", gallery)
        return summary

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None, actor: str) -> Receipt:
        """See `Gallery.drop_gallery`."""
        removal = await self._gallery.drop_gallery(check_gallery_name(gallery), expected_revision=expected_revision)
        return await self._receipt(removal, actor, "gallery.erase", gallery, None)

    async def add_person(self, gallery: str, person_id: str, change: PersonChange, *, actor: str) -> Person:
        """Store a person without faces. Raises PersonExists, InvalidRequest."""
        name = change.name if isinstance(change.name, str) else None
        metadata = change.metadata if isinstance(change.metadata, Mapping) else {}
        person = await self._gallery.enrol(check_gallery_name(gallery), check_person_id(person_id), name, metadata, [])
        await self._note(actor, "person.add", gallery, person_id)
        return person

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None, actor: str
    ) -> Person:
        """See `Gallery.update_person`; answers that tell of the former name go as well."""
        person = await self._gallery.update_person(
            check_gallery_name(gallery), check_person_id(person_id), change, expected_revision=expected_revision
        )
        await self._note(actor, "person.update", gallery, person_id)
        return person

    async def forget_person(
        self, gallery: str, person_id: str, *, expected_revision: int | None = None, actor: str
    ) -> Receipt:
        """Erase a person everywhere. See `Gallery.forget_person`."""
        removal = await self._gallery.forget_person(
            check_gallery_name(gallery), check_person_id(person_id), expected_revision=expected_revision
        )
        return await self._receipt(removal, actor, "person.erase", gallery, person_id)

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None, actor: str
    ) -> Receipt:
        """Erase one face everywhere. See `Gallery.forget_face`."""
        removal = await self._gallery.forget_face(
            check_gallery_name(gallery), check_person_id(person_id), face_id, expected_revision=expected_revision
        )
        return await self._receipt(removal, actor, "face.erase", gallery, person_id)

    async def erase_expired(self) -> int:
        """Erase some of the faces whose time has come; how many."""
        faces = 0
        for expiry in await self._gallery.erase_expired():
            action = "person.expire" if expiry.removal.persons else "face.expire"
            await self._receipt(expiry.removal, _SYSTEM, action, expiry.gallery, expiry.person_id)
            faces += expiry.removal.faces
        return faces

    async def prune_journal(self) -> None:
        """Let go of what the journal need not keep any longer."""
        await self._journal.prune()

    async def dossier(self, gallery: str, person_id: str, *, actor: str) -> Dossier:
        """All that is stored of a person; that somebody asked is noted too. Raises GalleryNotFound, PersonNotFound."""
        check_gallery_name(gallery)
        check_person_id(person_id)
        person = await self._gallery.person(gallery, person_id)
        record = await self._gallery.person_record(gallery, person_id)
        await self._note(actor, "person.export", gallery, person_id)
        entries = await self._journal.entries(
            gallery=gallery, person_id=person_id, before=None, limit=_MAX_DOSSIER_ENTRIES
        )
        return Dossier(person, record, tuple(entries))

    async def noted(self, gallery: str, action: str, *, actor: str, counts: Mapping[str, int]) -> None:
        """Note what concerns a whole gallery and was done elsewhere, such as an import."""
        await self._note(actor, action, gallery, None, counts)

    async def _receipt(self, removal: Removal, actor: str, action: str, gallery: str, person_id: str | None) -> Receipt:
        answers = await self._journal.erase(gallery, person_id)
        cached = await self._uncached(removal.crop_digests)
        counts = {"persons": removal.persons, "faces": removal.faces, "crops": removal.crops}
        await self._note(actor, action, gallery, person_id, counts)
        return Receipt(removal, cached, answers, datetime.now(UTC))

    async def _uncached(self, digests: Sequence[str]) -> int | None:
        # All are asked for, whatever becomes of the first: a cache that does not answer keeps them in mind.
        removed = [
            await self._cache.remove(digests[start : start + _DIGESTS_AT_ONCE])
            for start in range(0, len(digests), _DIGESTS_AT_ONCE)
        ]
        known = [each for each in removed if each is not None]
        return sum(known) if len(known) == len(removed) else None

    async def _note(
        self,
        actor: str,
        action: str,
        gallery: str,
        person_id: str | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        entry = JournalEntry(datetime.now(UTC), actor, action, gallery, person_id, counts or {})
        await self._journal.note(entry)
