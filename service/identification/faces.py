"""From the bytes of a picture to faces with embeddings, which is where every use case begins."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    AnalysedFace,
    Attribute,
    AttributeUnavailable,
    InvalidRequest,
    MaskEstimate,
    NoFaceFound,
    QualityLevel,
    QualityTooLow,
    SeveralFacesFound,
)
from service.ports import AnalysedPicture, Embedder, EmbeddingCache, FoundFace, MaskClassifier, PictureAnalyser


@dataclass(frozen=True, slots=True)
class PictureFaces:
    """What a picture showed: its size in pixels, its faces largest first, and the time each stage took."""

    width: int
    height: int
    faces: tuple[AnalysedFace, ...]
    faces_total: int
    timings_ms: Mapping[str, float]


class FaceReader:
    """Finds the faces of a picture and embeds them, as far as the cache does not have their embeddings.

    Args:
        max_faces: that one picture is answered for at most.
        masks: None where there is no classifier.
    """

    def __init__(
        self,
        analyser: PictureAnalyser,
        embedder: Embedder,
        cache: EmbeddingCache,
        *,
        max_faces: int,
        masks: MaskClassifier | None = None,
    ) -> None:
        self._analyser, self._embedder, self._cache = analyser, embedder, cache
        self._max_faces = max_faces
        self._masks = masks

    @property
    def attributes(self) -> frozenset[Attribute]:
        """What can be told of faces."""
        return frozenset(() if self._masks is None else ("mask",))

    def check_attributes(self, asked: Collection[Attribute]) -> None:
        """Raises AttributeUnavailable when something is asked for that cannot be told here."""
        missing = sorted(set(asked) - self.attributes)
        if missing:
            raise AttributeUnavailable(
                f"this service has no classifier for {', '.join(missing)}", attributes=missing, field="attributes"
            )

    async def masks_of(
        self, faces: Sequence[FoundFace], asked: Collection[Attribute], timings_ms: dict[str, float]
    ) -> list[MaskEstimate | None]:
        """Whether each face wears a mask, if that is asked for; the time it took goes into `timings_ms`."""
        if "mask" not in asked or self._masks is None:
            return [None] * len(faces)
        started = time.perf_counter()
        probabilities = await self._masks.probabilities([face.crop for face in faces])
        timings_ms["mask"] = ms_since(started)
        return [MaskEstimate(probability) for probability in probabilities]

    async def all_faces(self, picture: bytes, max_faces: int | None) -> AnalysedPicture:
        """The picture's faces, largest first; none is an answer too. Raises InvalidRequest for a wrong `max_faces`."""
        if max_faces is not None and not 1 <= max_faces <= self._max_faces:
            raise InvalidRequest(f"max_faces lies between 1 and {self._max_faces}", field="max_faces")
        return await self._analyser.analyse(picture, max_faces=max_faces or self._max_faces)

    async def some_faces(self, picture: bytes, max_faces: int | None) -> AnalysedPicture:
        """As `all_faces`. Raises NoFaceFound when the picture shows none."""
        analysed = await self.all_faces(picture, max_faces)
        if not analysed.faces:
            raise NoFaceFound("the picture shows no face", picture=0)
        return analysed

    async def only_face(
        self, picture: bytes, index: int, gate: QualityLevel = "off"
    ) -> tuple[FoundFace, Mapping[str, float]]:
        """The one face that a picture is about, and timings; with bystanders it is refused, not guessed at.

        Raises:
            NoFaceFound, SeveralFacesFound, QualityTooLow: with `index`, the picture's number in the request.
        """
        analysed = await self._analyser.analyse(picture, max_faces=2)
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
        digests = [crop_digest(face.crop) for face in faces]
        vectors = await self._cache.get(digests)
        missing = [index for index, vector in enumerate(vectors) if vector is None]
        if missing:
            fresh = await self._embedder.embed([faces[index].crop for index in missing])
            for index, vector in zip(missing, fresh, strict=True):
                vectors[index] = vector
            await self._cache.put({digests[index]: fresh[row] for row, index in enumerate(missing)})
        return np.stack([vector for vector in vectors if vector is not None])

    async def png_of(self, face: FoundFace) -> bytes:
        """The aligned crop as a file that gives the same pixels back."""
        return await self._analyser.encode(face.crop)


def crop_digest(crop: NDArray[np.uint8]) -> str:
    """Hex BLAKE2b-160 of an aligned crop's pixels: equal crops have equal embeddings."""
    return hashlib.blake2b(crop.tobytes(), digest_size=20).hexdigest()


def picture_faces(analysed: AnalysedPicture, faces: list[AnalysedFace], more: Mapping[str, float]) -> PictureFaces:
    """An answer about a picture, with further timings."""
    return PictureFaces(
        width=analysed.width,
        height=analysed.height,
        faces=tuple(faces),
        faces_total=analysed.faces_total,
        timings_ms={**analysed.timings_ms, **more},
    )


def ms_since(started: float) -> float:
    """Milliseconds since a `time.perf_counter`."""
    return (time.perf_counter() - started) * 1e3
