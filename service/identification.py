"""The use cases: detect, embed, enrol, identify, verify, forget. They know ports and domain, and no adapter."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration import ImpostorCurve
from service.domain import (
    AnalysedFace,
    Decision,
    IdentifiedFace,
    InvalidRequest,
    Match,
    NewFace,
    NoFaceFound,
    Person,
    QualityTooLow,
    Removal,
    SeveralFacesFound,
    check_gallery_name,
    check_person_id,
)
from service.ports import AnalysedPicture, Embedder, EmbeddingCache, FoundFace, Gallery, PictureAnalyser

MAX_TOP_K = 100


@dataclass(frozen=True, slots=True)
class PictureFaces:
    """What a picture showed: its size in pixels, its faces largest first, and the time each stage took."""

    width: int
    height: int
    faces: tuple[AnalysedFace, ...]
    faces_total: int
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A stored person with the faces that this call added."""

    person: Person
    faces: tuple[tuple[str, AnalysedFace], ...]
    conflicts: tuple[Match, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Identification:
    """The faces of a probe picture with candidates and decisions."""

    width: int
    height: int
    faces: tuple[IdentifiedFace, ...]
    faces_total: int
    gallery: str
    gallery_size: int
    threshold: float
    fpir: float
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether two faces, or a face and a person, are the same."""

    same: bool
    similarity: float
    threshold: float
    false_match_rate: float
    probe: AnalysedFace
    reference: AnalysedFace | None
    face_id: str | None


class IdentificationService:
    """Use cases over four ports.

    Args:
        curve: impostor scores of the model in use; turns target rates into thresholds.
        target_fpir: default false-positive identification rate.
        max_faces: faces that one picture is answered for at most.
        enforce_quality: refuse to enrol faces with issues.
    """

    def __init__(
        self,
        analyser: PictureAnalyser,
        embedder: Embedder,
        cache: EmbeddingCache,
        gallery: Gallery,
        curve: ImpostorCurve,
        *,
        target_fpir: float,
        max_faces: int,
        enforce_quality: bool,
    ) -> None:
        self._analyser = analyser
        self._embedder = embedder
        self._cache = cache
        self._gallery = gallery
        self._curve = curve
        self._target_fpir = target_fpir
        self._max_faces = max_faces
        self._enforce_quality = enforce_quality

    async def detect(self, picture: bytes, *, max_faces: int | None = None) -> PictureFaces:
        """Boxes, landmarks and quality of all faces; none is an answer too."""
        analysed = await self._analyser.analyse(picture, max_faces=self._bounded_faces(max_faces))
        return _picture_faces(analysed, [AnalysedFace(face.detection, face.quality) for face in analysed.faces], {})

    async def embeddings(self, picture: bytes, *, max_faces: int | None = None) -> PictureFaces:
        """As `detect`, with the embedding of each face.

        Raises:
            NoFaceFound: the picture shows none.
        """
        analysed = await self._analyse_with_faces(picture, max_faces)
        started = time.perf_counter()
        vectors = await self._embed(analysed.faces)
        faces = [
            AnalysedFace(face.detection, face.quality, vector)
            for face, vector in zip(analysed.faces, vectors, strict=True)
        ]
        return _picture_faces(analysed, faces, {"embed": _ms_since(started)})

    async def enrol(
        self,
        pictures: Sequence[bytes],
        *,
        gallery: str,
        person_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        extend: bool = False,
    ) -> Enrolment:
        """Store the one face of each picture under one person; all pictures or none.

        Args:
            person_id: the caller's id, or None for a fresh one.
            extend: add to a person who may exist already, rather than refuse.

        Returns:
            The person, and whoever else in the gallery looks like them at the default FPIR.

        Raises:
            InvalidRequest: no picture, or a malformed gallery name or person id.
            NoFaceFound, SeveralFacesFound, QualityTooLow: with the index of the picture, counted from 0.
            PersonExists: the id is taken and `extend` is false.
        """
        check_gallery_name(gallery)
        person_id = check_person_id(person_id) if person_id is not None else f"p-{uuid.uuid4().hex}"
        if not pictures:
            raise InvalidRequest("at least one picture is needed", field="images")
        found = [await self._single_face(picture, index) for index, picture in enumerate(pictures)]
        started = time.perf_counter()
        vectors = await self._embed([face for face, _ in found])
        embedded = time.perf_counter()
        conflicts = await self._lookalikes(gallery, person_id, vectors)
        searched = time.perf_counter()
        new_faces = [
            NewFace(f"f-{uuid.uuid4().hex}", vector, face.quality, crop_digest(face.crop))
            for (face, _), vector in zip(found, vectors, strict=True)
        ]
        person = await self._gallery.enrol(gallery, person_id, name, metadata or {}, new_faces, extend=extend)
        timings = _sum_timings([timings for _, timings in found])
        timings["embed"] = (embedded - started) * 1e3
        timings["search"] = (searched - embedded) * 1e3
        timings["store"] = _ms_since(searched)
        faces = tuple(
            (new.face_id, AnalysedFace(face.detection, face.quality))
            for new, (face, _) in zip(new_faces, found, strict=True)
        )
        return Enrolment(person=person, faces=faces, conflicts=conflicts, timings_ms=timings)

    async def face_to_enrol(self, picture: bytes, *, face_id: str) -> NewFace:
        """The one face of a picture, as `enrol` would store it.

        Raises:
            NoFaceFound, SeveralFacesFound, QualityTooLow, and what the analyser and the embedder raise.
        """
        face, _ = await self._single_face(picture, 0)
        (vector,) = await self._embed([face])
        return NewFace(face_id, vector, face.quality, crop_digest(face.crop))

    async def identify(
        self,
        picture: bytes,
        *,
        gallery: str,
        top_k: int = 5,
        fpir: float | None = None,
        threshold: float | None = None,
        max_faces: int | None = None,
        exact: bool = False,
    ) -> Identification:
        """Who of a gallery is in the picture.

        Args:
            top_k: candidates listed a face, whether or not they reach the threshold.
            fpir: target false-positive identification rate; the threshold follows from it and the gallery's size.
            threshold: a cosine to use instead.
            exact: compare with every face of a large gallery.

        Raises:
            InvalidRequest: both `fpir` and `threshold`, or a value out of range.
            NoFaceFound: the picture shows none.
        """
        check_gallery_name(gallery)
        _check_range("top_k", top_k, 1, MAX_TOP_K)
        if fpir is not None and threshold is not None:
            raise InvalidRequest("fpir and threshold exclude each other", field="threshold")
        if threshold is not None:
            _check_range("threshold", threshold, -1.0, 1.0)
        if fpir is not None and not 0.0 < fpir < 1.0:
            raise InvalidRequest("fpir lies between 0 and 1", field="fpir")
        analysed = await self._analyse_with_faces(picture, max_faces)
        started = time.perf_counter()
        vectors = await self._embed(analysed.faces)
        embedded = time.perf_counter()
        results = await self._gallery.search(gallery, vectors, top_k, exact=exact)
        timings = {**analysed.timings_ms, "embed": (embedded - started) * 1e3, "search": _ms_since(embedded)}
        # All probes of one call are searched in one state of the gallery.
        size = results[0].gallery_size if results else 0
        if threshold is None:
            threshold = self._curve.threshold(fpir if fpir is not None else self._target_fpir, size)
        achieved = self._curve.fpir(threshold, size)
        faces = tuple(
            IdentifiedFace(
                AnalysedFace(face.detection, face.quality), result.matches, _decide(result.matches, threshold, achieved)
            )
            for face, result in zip(analysed.faces, results, strict=True)
        )
        return Identification(
            width=analysed.width,
            height=analysed.height,
            faces=faces,
            faces_total=analysed.faces_total,
            gallery=gallery,
            gallery_size=size,
            threshold=threshold,
            fpir=achieved,
            timings_ms=timings,
        )

    async def verify(
        self,
        picture: bytes,
        reference: bytes | None = None,
        *,
        gallery: str,
        person_id: str | None = None,
        fmr: float = 1e-3,
    ) -> Verification:
        """Compare the one face of a picture with that of another picture, or with an enrolled person.

        Args:
            fmr: target false-match rate of the comparison.

        Raises:
            InvalidRequest: neither or both of `reference` and `person_id`.
            NoFaceFound, SeveralFacesFound, GalleryNotFound, PersonNotFound.
        """
        if (reference is None) == (person_id is None):
            raise InvalidRequest("verify takes a second picture or a person_id, one of the two", field="person_id")
        if not 0.0 < fmr < 1.0:
            raise InvalidRequest("fmr lies between 0 and 1", field="fmr")
        probe, _ = await self._single_face(picture, 0)
        other, face_id = None, None
        if reference is not None:
            found, _ = await self._single_face(reference, 1)
            vectors = await self._embed([probe, found])
            similarity = float(np.clip(vectors[0] @ vectors[1], -1.0, 1.0))
            other, comparisons = AnalysedFace(found.detection, found.quality), 1
        else:
            assert person_id is not None
            vector = (await self._embed([probe]))[0]
            matches = await self._gallery.similarities_to(
                check_gallery_name(gallery), check_person_id(person_id), vector
            )
            similarity, face_id, comparisons = matches[0].similarity, matches[0].face_id, len(matches)
        # Against a person of several faces the best of them counts, which gives a stranger several chances.
        threshold = self._curve.threshold(fmr, comparisons)
        return Verification(
            same=similarity >= threshold,
            similarity=similarity,
            threshold=threshold,
            false_match_rate=self._curve.fpir(similarity, comparisons),
            probe=AnalysedFace(probe.detection, probe.quality),
            reference=other,
            face_id=face_id,
        )

    async def forget(self, gallery: str, person_id: str) -> tuple[Removal, int]:
        """Erase a person: rows, index entries and cached embeddings. Also tells how many cache entries went."""
        removal = await self._gallery.forget_person(gallery, person_id)
        return removal, await self._cache.remove(removal.crop_digests)

    def fpir_of(self, similarity: float, gallery_size: int) -> float:
        """Chance that a stranger's best match in a gallery of this size reaches `similarity`."""
        return self._curve.fpir(similarity, gallery_size)

    async def _lookalikes(self, gallery: str, person_id: str, vectors: NDArray[np.float32]) -> tuple[Match, ...]:
        results = await self._gallery.search(gallery, vectors, 3)
        best: dict[str, Match] = {}
        for result in results:
            threshold = self._curve.threshold(self._target_fpir, result.gallery_size)
            for match in result.matches:
                known = best.get(match.person_id)
                if match.person_id != person_id and match.similarity >= threshold:
                    best[match.person_id] = match if known is None or match.similarity > known.similarity else known
        return tuple(sorted(best.values(), key=lambda match: (-match.similarity, match.face_id)))

    async def _single_face(self, picture: bytes, index: int) -> tuple[FoundFace, Mapping[str, float]]:
        """The one face that a picture is about; large pictures with bystanders are refused, not guessed at."""
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
        if self._enforce_quality and face.quality.issues:
            raise QualityTooLow(
                f"the face in picture {index} is not good enough: {', '.join(face.quality.issues)}",
                picture=index,
                issues=list(face.quality.issues),
            )
        return face, analysed.timings_ms

    async def _analyse_with_faces(self, picture: bytes, max_faces: int | None) -> AnalysedPicture:
        analysed = await self._analyser.analyse(picture, max_faces=self._bounded_faces(max_faces))
        if not analysed.faces:
            raise NoFaceFound("the picture shows no face", picture=0)
        return analysed

    def _bounded_faces(self, max_faces: int | None) -> int:
        if max_faces is None:
            return self._max_faces
        _check_range("max_faces", max_faces, 1, self._max_faces)
        return max_faces

    async def _embed(self, faces: Sequence[FoundFace]) -> NDArray[np.float32]:
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


def crop_digest(crop: NDArray[np.uint8]) -> str:
    """Hex BLAKE2b-160 of an aligned crop's pixels: equal crops have equal embeddings."""
    return hashlib.blake2b(crop.tobytes(), digest_size=20).hexdigest()


def _decide(matches: Sequence[Match], threshold: float, fpir: float) -> Decision:
    if matches and matches[0].similarity >= threshold:
        return Decision(identified=True, person_id=matches[0].person_id, threshold=threshold, fpir=fpir)
    return Decision(identified=False, person_id=None, threshold=threshold, fpir=fpir)


def _picture_faces(analysed: AnalysedPicture, faces: list[AnalysedFace], more: Mapping[str, float]) -> PictureFaces:
    return PictureFaces(
        width=analysed.width,
        height=analysed.height,
        faces=tuple(faces),
        faces_total=analysed.faces_total,
        timings_ms={**analysed.timings_ms, **more},
    )


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} lies between {low} and {high}", field=field)


def _sum_timings(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for picture in timings:
        for stage, value in picture.items():
            totals[stage] = totals.get(stage, 0.0) + value
    return totals


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
