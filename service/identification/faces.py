"""From the bytes of a picture to faces with embeddings, which is where every use case begins."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    AnalysedFace,
    AttributeReading,
    AttributeUnavailable,
    InvalidRequest,
    NoFaceFound,
    QualityLevel,
    QualityTooLow,
    SeveralFacesFound,
)
from service.ports import (
    AnalysedPicture,
    AttributeReader,
    BoxView,
    Embedder,
    EmbeddingCache,
    FoundFace,
    KnownFace,
    KnownPicture,
    PictureAnalyser,
)

# Bytes; more take longer than the event loop should be kept from others.
_HASHED_IN_PASSING = 256_000


@dataclass(frozen=True, slots=True)
class PictureFaces:
    """What a picture showed: its size in pixels, its faces largest first, and the time each stage took."""

    width: int
    height: int
    faces: tuple[AnalysedFace, ...]
    faces_total: int
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A picture with the embeddings of its faces.

    Attributes:
        attributes: of its faces in their order, by name; empty where nobody asked.
    """

    picture: KnownPicture
    attributes: Sequence[Mapping[str, AttributeReading]]
    timings_ms: dict[str, float]


class FaceReader:
    """Finds the faces of a picture and embeds them, as far as the cache does not have their embeddings.

    Args:
        max_faces: that one picture is answered for at most.
        attributes: tells them; None where there is no network for any.
    """

    def __init__(
        self,
        analyser: PictureAnalyser,
        embedder: Embedder,
        cache: EmbeddingCache,
        *,
        max_faces: int,
        attributes: AttributeReader | None = None,
    ) -> None:
        self._analyser, self._embedder, self._cache = analyser, embedder, cache
        self._max_faces = max_faces
        self._attributes = attributes

    @property
    def attributes(self) -> frozenset[str]:
        """What can be told of faces."""
        return frozenset() if self._attributes is None else self._attributes.names

    def check_attributes(self, asked: Collection[str]) -> None:
        """Raises AttributeUnavailable when something is asked for that cannot be told here."""
        missing = sorted(set(asked) - self.attributes)
        if missing:
            available = sorted(self.attributes)
            raise AttributeUnavailable(
                f"this service has no network for {', '.join(missing)}; it has one for "
                f"{', '.join(available) or 'nothing'}",
                attributes=missing,
                available=available,
                field="attributes",
            )

    async def attributes_of(
        self, faces: Sequence[FoundFace], asked: Collection[str], timings_ms: dict[str, float]
    ) -> Sequence[Mapping[str, AttributeReading]]:
        """What is asked for of faces that were found for it; the time that each took goes into `timings_ms`."""
        if not asked or self._attributes is None:
            return [{}] * len(faces)
        told = await self._attributes.read(faces, frozenset(asked))
        timings_ms |= told.timings_ms
        return told.faces

    async def all_faces(
        self, picture: bytes, max_faces: int | None, attributes: Collection[str] = ()
    ) -> AnalysedPicture:
        """The picture's faces, largest first, ready for `attributes_of`; none is an answer too.

        Raises:
            InvalidRequest: a wrong `max_faces`.
        """
        most = self._most_faces(max_faces)
        return await self._analyser.analyse(picture, max_faces=most, views=self._views(attributes))

    async def read(self, picture: bytes, max_faces: int | None, attributes: Collection[str] = ()) -> Reading:
        """The picture's faces with embeddings, largest first, from the cache where it has seen this very picture.

        Raises:
            AttributeUnavailable: one of `attributes` cannot be told here.
            InvalidRequest: a wrong `max_faces`.
            NoFaceFound: the picture shows none.
        """
        self.check_attributes(attributes)
        most = self._most_faces(max_faces)
        started = time.perf_counter()
        key = f"{self._analyser.identity}:{most}:{await _sha256(picture)}"
        # Attributes are told of pixels, and those are not kept.
        known = await self._cache.seen(key) if not attributes else None
        timings = {"cache": ms_since(started)}
        told: Sequence[Mapping[str, AttributeReading]] = ()
        if known is None:
            analysed = await self._analyser.analyse(picture, max_faces=most, views=self._views(attributes))
            timings |= analysed.timings_ms
            started = time.perf_counter()
            known = await self._known(analysed)
            timings["embed"] = ms_since(started)
            await self._cache.saw(key, known)
            told = await self.attributes_of(analysed.faces, attributes, timings)
        if not known.faces:
            raise NoFaceFound("the picture shows no face", picture=0)
        return Reading(known, told or [{}] * len(known.faces), timings)

    async def _known(self, analysed: AnalysedPicture) -> KnownPicture:
        digests = [crop_digest(face.crop) for face in analysed.faces]
        vectors, _ = await self._embedded(analysed.faces, digests)
        faces = tuple(
            KnownFace(face.detection, face.quality, face.strict_issues, digest, vector)
            for face, digest, vector in zip(analysed.faces, digests, vectors, strict=True)
        )
        return KnownPicture(analysed.width, analysed.height, faces, analysed.faces_total)

    async def only_face(
        self, picture: bytes, index: int, gate: QualityLevel = "off", attributes: Collection[str] = ()
    ) -> tuple[FoundFace, Mapping[str, float]]:
        """The one face that a picture is about, ready for `attributes_of`, and timings.

        With bystanders it is refused, not guessed at.

        Raises:
            NoFaceFound, SeveralFacesFound, QualityTooLow: with `index`, the picture's number in the request.
        """
        analysed = await self._analyser.analyse(picture, max_faces=2, views=self._views(attributes))
        if not analysed.faces:
            raise NoFaceFound(f"picture {index} shows no face", picture=index)
        if analysed.faces_total > 1:
            raise SeveralFacesFound(
                f"picture {index} shows {analysed.faces_total} faces; exactly one is needed",
                picture=index,
                faces=analysed.faces_total,
            )
        face = analysed.faces[0]
        issues = {"off": (), "standard": face.quality.issues, "strict": face.strict_issues}[gate]
        if issues:
            raise QualityTooLow(
                f"the face in picture {index} is not good enough: {', '.join(issues)}",
                picture=index,
                issues=list(issues),
            )
        return face, analysed.timings_ms

    async def embed(self, faces: Sequence[FoundFace]) -> NDArray[np.float32]:
        """(n, d) unit embeddings, from the cache where it has them."""
        vectors, fresh = await self._embedded(faces, [crop_digest(face.crop) for face in faces])
        await self._cache.put(fresh)
        return np.stack(vectors)

    async def _embedded(
        self, faces: Sequence[FoundFace], digests: Sequence[str]
    ) -> tuple[list[NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
        """Embeddings in the order of `faces`, and those by digest that the cache did not have."""
        vectors = await self._cache.get(digests)
        missing = [index for index, vector in enumerate(vectors) if vector is None]
        if missing:
            fresh = await self._embedder.embed([faces[index].crop for index in missing])
            for index, vector in zip(missing, fresh, strict=True):
                vectors[index] = vector
        found = [vector for vector in vectors if vector is not None]
        return found, {digests[index]: found[index] for index in missing}

    def _views(self, attributes: Collection[str]) -> frozenset[BoxView]:
        return frozenset() if self._attributes is None else self._attributes.views(attributes)

    def _most_faces(self, asked: int | None) -> int:
        if asked is not None and not 1 <= asked <= self._max_faces:
            raise InvalidRequest(f"max_faces lies between 1 and {self._max_faces}", field="max_faces")
        return asked or self._max_faces

    async def png_of(self, face: FoundFace) -> bytes:
        """The aligned crop as a file that gives the same pixels back."""
        return await self._analyser.encode(face.crop)


def crop_digest(crop: NDArray[np.uint8]) -> str:
    """Hex BLAKE2b-160 of an aligned crop's pixels: equal crops have equal embeddings."""
    return hashlib.blake2b(crop.tobytes(), digest_size=20).hexdigest()


async def _sha256(picture: bytes) -> str:
    if len(picture) <= _HASHED_IN_PASSING:
        return hashlib.sha256(picture).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, picture)).hexdigest()


def picture_faces(
    picture: AnalysedPicture | KnownPicture, faces: Sequence[AnalysedFace], timings_ms: Mapping[str, float]
) -> PictureFaces:
    """An answer about a picture."""
    return PictureFaces(picture.width, picture.height, tuple(faces), picture.faces_total, timings_ms)


def summed(timings_ms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The time of each stage over several pictures."""
    totals: dict[str, float] = {}
    for of_picture in timings_ms:
        for stage, value in of_picture.items():
            totals[stage] = totals.get(stage, 0.0) + value
    return totals


def ms_since(started: float) -> float:
    """Milliseconds since a `time.perf_counter`."""
    return (time.perf_counter() - started) * 1e3
