"""Who is enrolled: what the use cases need of a store of faces that can be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    Expiry,
    Face,
    GallerySettings,
    ImportOutcome,
    Match,
    NewFace,
    Person,
    PersonChange,
    PersonFilter,
    PersonPage,
    PersonRecord,
    Removal,
)


@dataclass(frozen=True, slots=True)
class GallerySummary:
    """A gallery at a glance."""

    name: str
    persons: int
    faces: int
    revision: int
    settings: GallerySettings = field(default_factory=GallerySettings)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Candidates of one probe and the gallery they were found in.

    Attributes:
        matches: best first by similarity, ties by face id; one entry a person.
        gallery_size: faces that were searched.
    """

    matches: tuple[Match, ...]
    gallery_size: int


class Gallery(Protocol):
    """Enrolled faces, by gallery name. All methods may be awaited concurrently.

    Acknowledged means durable: when a changing call returns, its effect survives the death of the process, and a search
    that begins afterwards sees it. A changing call that raises has changed nothing.
    A gallery comes to be with its first enrolment or by `create_gallery`; reading one that does not exist raises
    GalleryNotFound.
    A face whose `expires_at` has passed is seen by no call any more; `erase_expired` takes it away.
    Calls with `expected_revision` raise RevisionMismatch when the gallery or person has another one.
    """

    async def create_gallery(self, gallery: str, settings: GallerySettings) -> GallerySummary:
        """Begin an empty gallery.

        Raises:
            GalleryExists: the name is taken.
            InvalidRequest: the name is not acceptable, or this gallery cannot keep crops.
        """

    async def configure_gallery(
        self, gallery: str, settings: GallerySettings, *, expected_revision: int | None = None
    ) -> GallerySummary:
        """Replace a gallery's settings. Raises GalleryNotFound, RevisionMismatch, InvalidRequest."""

    async def drop_gallery(self, gallery: str, *, expected_revision: int | None = None) -> Removal:
        """Erase a gallery with everybody in it. Raises GalleryNotFound, RevisionMismatch."""

    async def settings(self, gallery: str) -> GallerySettings:
        """A gallery's settings; the defaults where there is no such gallery. Costs no round trip."""

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        name: str | None,
        metadata: Mapping[str, Any],
        faces: Sequence[NewFace],
        *,
        extend: bool = False,
    ) -> Person:
        """Store a new person with faces, or with `extend` add faces to one who may exist already.

        With `extend`, a name or non-empty metadata replaces what an existing person had; absent ones leave it.
        A person may have no face; then no search finds them.

        Raises:
            PersonExists: the id is taken and `extend` is false.
            InvalidEmbedding: a vector has the wrong length, is not finite or not of unit length.
            StorageFull: the disk took no more.
        """

    async def import_persons(self, gallery: str, records: Sequence[PersonRecord]) -> list[ImportOutcome]:
        """Store many persons at once: as if one after the other, each by itself, but for the price of few commits.

        Where a record's person exists, their name and metadata stay and the faces that they do not have are added, so
        that a repeated import changes nothing. A record stores all of its new faces or, with an error, nothing.

        Returns:
            An outcome a record, in their order. Errors are those of `enrol`, InvalidRequest also for a face id that is
            somebody else's.

        Raises:
            InvalidRequest: the gallery's name.
            StorageFull: the disk took no more; nothing was stored.
        """

    async def export_persons(self, gallery: str, *, after: str | None, limit: int) -> list[PersonRecord]:
        """Up to `limit` persons with their embeddings, in order of id, starting behind `after`.

        Raises GalleryNotFound.
        """

    async def person_record(self, gallery: str, person_id: str) -> PersonRecord:
        """One person as `export_persons` would give them. Raises GalleryNotFound, PersonNotFound."""

    async def search(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        top_k: int,
        *,
        exact: bool = False,
        among: Sequence[str] | None = None,
    ) -> list[SearchResult]:
        """The `top_k` most similar persons for each of (n, d) unit probes.

        Similarities are exact cosines. A large gallery may be searched in a way that now and then misses somebody;
        with `exact` it is not, whatever that costs.

        With `among`, only the faces of the persons of these ids are searched, exactly, and `gallery_size` counts them
        alone; ids of nobody are passed over.

        A person's similarity is that of their nearest face. A gallery that is empty or does not exist yields no
        matches and size 0: nobody is enrolled there.

        Raises:
            InvalidEmbedding: a probe has the wrong length or is not finite.
        """

    async def similarities_to(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """Cosine of one probe (d,) to every face of one person, best first.

        Raises:
            GalleryNotFound, PersonNotFound.
        """

    async def galleries(self) -> list[GallerySummary]:
        """All galleries, by name."""

    async def summary(self, gallery: str) -> GallerySummary:
        """One gallery. Raises GalleryNotFound."""

    async def persons(self, gallery: str, *, after: str | None, limit: int) -> list[Person]:
        """Up to `limit` persons in order of id, starting behind `after`. Raises GalleryNotFound."""

    async def find_persons(self, gallery: str, wanted: PersonFilter, *, after: str | None, limit: int) -> PersonPage:
        """Persons who fit a filter, up to `limit` in order of id, starting behind `after`.

        It looks at a bounded number of persons a call, so that a page may be short and yet not the last.

        Raises GalleryNotFound.
        """

    async def person(self, gallery: str, person_id: str) -> Person:
        """One person. Raises GalleryNotFound, PersonNotFound."""

    async def update_person(
        self, gallery: str, person_id: str, change: PersonChange, *, expected_revision: int | None = None
    ) -> Person:
        """Change a person's name or metadata. Raises GalleryNotFound, PersonNotFound, RevisionMismatch."""

    async def forget_person(self, gallery: str, person_id: str, *, expected_revision: int | None = None) -> Removal:
        """Erase a person and all their faces. Raises GalleryNotFound, PersonNotFound, RevisionMismatch."""

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        """A person's faces in the order of enrolment. Raises GalleryNotFound, PersonNotFound."""

    async def owner_of(self, gallery: str, face_id: str) -> str:
        """Id of the person whose face this is. Raises GalleryNotFound, FaceNotFound."""

    async def crop(self, gallery: str, person_id: str, face_id: str) -> bytes:
        """The kept crop of a face, a PNG file. Raises GalleryNotFound, PersonNotFound, FaceNotFound, CropNotKept."""

    async def forget_face(
        self, gallery: str, person_id: str, face_id: str, *, expected_revision: int | None = None
    ) -> Removal:
        """Erase one face of a person, who stays, if need be without any; the revision is the person's.

        Raises:
            GalleryNotFound, PersonNotFound, FaceNotFound, RevisionMismatch.
        """

    async def erase_expired(self) -> list[Expiry]:
        """Erase faces whose time has come, a bounded number; a person whose last face goes is erased with it."""

    async def close(self) -> None:
        """Finish what was begun and let go of the folder; calls afterwards raise NotReady."""
