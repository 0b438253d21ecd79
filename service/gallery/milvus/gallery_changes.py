"""Changes to galleries as such.

Milvus erases no gallery in one step. A row of the kind drop takes the gallery's name away at once; then persons and
faces are erased in portions; with the last the gallery's row and the drop's go. Whoever finds a drop that nobody is at
work on any more may go on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.domain import GalleryExists, GallerySettings
from service.gallery.milvus.draft import Change, Draft
from service.gallery.milvus.refusals import check_revision
from service.gallery.milvus.rows import DropRow, GalleryRow
from service.gallery.records import now_us


@dataclass(frozen=True)
class Creation(Change):
    """See `Gallery.create_gallery`."""

    gallery: str
    settings: GallerySettings

    def apply(self, draft: Draft) -> GalleryRow:
        """See `Change`."""
        draft.check_name(self.gallery)
        if self.gallery in draft.galleries.existing:
            raise GalleryExists("there is a gallery of this name already", gallery=self.gallery)
        draft.galleries.existing[self.gallery] = GalleryRow(settings=self.settings)
        draft.next_revision(self.gallery)
        return draft.gallery(self.gallery)


@dataclass(frozen=True)
class Configuration(Change):
    """See `Gallery.configure_gallery`."""

    gallery: str
    settings: GallerySettings
    expected_revision: int | None

    def apply(self, draft: Draft) -> GalleryRow:
        """See `Change`."""
        known = draft.gallery(self.gallery)
        check_revision(known.revision, self.expected_revision)
        draft.galleries.existing[self.gallery] = replace(known, settings=self.settings)
        draft.next_revision(self.gallery)
        return draft.gallery(self.gallery)


@dataclass(frozen=True)
class Dropping(Change):
    """See `Gallery.drop_gallery`; takes the gallery's name away, and leaves the rest to `Sweeping` and `Ending`."""

    gallery: str
    expected_revision: int | None

    def apply(self, draft: Draft) -> int:
        """See `Change`; the revision that this made."""
        check_revision(draft.gallery(self.gallery).revision, self.expected_revision)
        revision = draft.next_revision(self.gallery)
        del draft.galleries.existing[self.gallery]
        draft.touched.discard(self.gallery)
        draft.dropped.add(self.gallery)
        draft.galleries.dropping[self.gallery] = draft.alive[self.gallery] = DropRow(revision, now_us())
        return revision


@dataclass(frozen=True)
class Sweeping(Change):
    """Erases some of what a dropped gallery held: keys that were read since it was dropped."""

    gallery: str
    revision: int
    people: Sequence[str] = ()
    faces: Sequence[str] = ()

    def apply(self, draft: Draft) -> bool:
        """See `Change`; false, and nothing is erased, when somebody else has ended this drop."""
        if not _goes_on(draft, self.gallery, self.revision):
            return False
        draft.swept_people += self.people
        draft.swept_faces += self.faces
        draft.alive[self.gallery] = DropRow(self.revision, now_us())
        return True


@dataclass(frozen=True)
class Ending(Change):
    """Ends a drop after which nothing is left."""

    gallery: str
    revision: int

    def apply(self, draft: Draft) -> None:
        """See `Change`."""
        if _goes_on(draft, self.gallery, self.revision):
            draft.alive.pop(self.gallery, None)
            del draft.galleries.dropping[self.gallery]
            draft.ended.add(self.gallery)


def _goes_on(draft: Draft, gallery: str, revision: int) -> bool:
    drop = draft.galleries.dropping.get(gallery)
    return drop is not None and drop.revision == revision
