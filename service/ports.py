"""What the use cases need from the outside, as protocols with their semantics. Adapters live one level up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    Detection,
    FaceQuality,
    ImportOutcome,
    Match,
    NewFace,
    Person,
    PersonRecord,
    Removal,
)


class Detector(Protocol):
    """Finds faces. Safe to call from several threads at once; blocks, so never call it on the event loop."""

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a (height, width, 3) uint8 BGR picture, most confident first, in its pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """A face that was found, measured and cut out.

    Attributes:
        crop: (112, 112, 3) uint8, BGR, aligned by the contract.
    """

    detection: Detection
    quality: FaceQuality
    crop: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedPicture:
    """An upright picture's size in pixels and its faces, largest first.

    Attributes:
        faces_total: faces found, of which `faces` holds the first `max_faces`.
        timings_ms: wall time of each stage.
    """

    width: int
    height: int
    faces: tuple[FoundFace, ...]
    faces_total: int
    timings_ms: Mapping[str, float]


class PictureAnalyser(Protocol):
    """Bytes of a picture to aligned faces, off the event loop, with a bounded number of pictures at a time."""

    async def analyse(self, picture: bytes, *, max_faces: int) -> AnalysedPicture:
        """Decode, detect, align and assess.

        Raises:
            ImageError: one of its kinds, when the bytes are not an acceptable picture.
            Overloaded: too many pictures are waiting, or this one waited too long.
        """


class Embedder(Protocol):
    """Turns aligned crops into embeddings, gathering concurrent callers into batches."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""

    @property
    def space_id(self) -> str:
        """Name of the embedding space."""

    async def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed crops of one request.

        Args:
            crops: each (112, 112, 3) uint8, BGR, aligned by the contract.

        Returns:
            (n, dimension) float32 of unit length, in the order given.

        Raises:
            Overloaded: the queue is full or the deadline has passed.
            InvalidEmbedding: the network answered with a vector that has no direction.
        """


class EmbeddingCache(Protocol):
    """Remembers embeddings by the hash of a crop. Never raises and never waits past its timeout: trouble is a miss."""

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """One embedding or None for each key."""

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """Remember embeddings, as far as possible."""

    async def remove(self, keys: Sequence[str]) -> int:
        """Forget keys; how many were there, as far as known."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class GallerySummary:
    """A gallery at a glance."""

    name: str
    persons: int
    faces: int
    revision: int


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
    A gallery comes to be with its first enrolment; reading one that does not exist raises GalleryNotFound.
    """

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

    async def search(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool = False
    ) -> list[SearchResult]:
        """The `top_k` most similar persons for each of (n, d) unit probes.

        Similarities are exact cosines. A large gallery may be searched in a way that now and then misses somebody;
        with `exact` it is not, whatever that costs.

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

    async def person(self, gallery: str, person_id: str) -> Person:
        """One person. Raises GalleryNotFound, PersonNotFound."""

    async def forget_person(self, gallery: str, person_id: str) -> Removal:
        """Erase a person and all their faces. Raises GalleryNotFound, PersonNotFound."""

    async def close(self) -> None:
        """Finish what was begun and let go of the folder; calls afterwards raise NotReady."""
