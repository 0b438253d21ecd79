"""Questions about a picture: which faces it shows, whose they are, whether two are the same."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.calibration import ImpostorCurve
from service.domain import (
    AnalysedFace,
    Decision,
    IdentifiedFace,
    InvalidRequest,
    Match,
    QualityLevel,
    check_gallery_name,
    check_person_id,
)
from service.identification.faces import FaceReader, PictureFaces, ms_since, picture_faces, summed
from service.ports import Gallery

MAX_TOP_K = 100
MAX_AMONG = 1_000


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
    timings_ms: Mapping[str, float]


class IdentificationService:
    """Answers about probes; changes nothing.

    Args:
        curve: impostor scores of the model in use; turns target rates into thresholds.
        target_fpir: false-positive identification rate of galleries that set none.
        quality_gate: what the pictures of a verification must have.
    """

    def __init__(
        self,
        reader: FaceReader,
        gallery: Gallery,
        curve: ImpostorCurve,
        *,
        target_fpir: float,
        quality_gate: QualityLevel,
    ) -> None:
        self._reader = reader
        self._gallery = gallery
        self._curve = curve
        self._target_fpir = target_fpir
        self._gate = quality_gate

    @property
    def attributes(self) -> frozenset[str]:
        """What can be told of faces where it is asked for."""
        return self._reader.attributes

    async def detect(
        self, picture: bytes, *, max_faces: int | None = None, attributes: Collection[str] = ()
    ) -> PictureFaces:
        """Boxes, landmarks and quality of all faces; none is an answer too.

        Raises:
            AttributeUnavailable: one of `attributes` cannot be told here.
        """
        self._reader.check_attributes(attributes)
        analysed = await self._reader.all_faces(picture, max_faces, attributes)
        timings = dict(analysed.timings_ms)
        told = await self._reader.attributes_of(analysed.faces, attributes, timings)
        faces = [
            AnalysedFace(face.detection, face.quality, attributes=of_face)
            for face, of_face in zip(analysed.faces, told, strict=True)
        ]
        return picture_faces(analysed, faces, timings)

    async def embeddings(
        self, picture: bytes, *, max_faces: int | None = None, attributes: Collection[str] = ()
    ) -> PictureFaces:
        """As `detect`, with the embedding of each face.

        Raises:
            NoFaceFound: the picture shows none.
        """
        reading = await self._reader.read(picture, max_faces, attributes)
        faces = [
            AnalysedFace(face.detection, face.quality, face.embedding, of_face)
            for face, of_face in zip(reading.picture.faces, reading.attributes, strict=True)
        ]
        return picture_faces(reading.picture, faces, reading.timings_ms)

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
        among: Sequence[str] | None = None,
        attributes: Collection[str] = (),
    ) -> Identification:
        """Who of a gallery is in the picture.

        Args:
            top_k: candidates listed a face, whether or not they reach the threshold.
            fpir: target false-positive identification rate; the threshold follows from it and the gallery's size.
            threshold: a cosine to use instead.
            exact: compare with every face of a large gallery.
            among: ids of the only persons whom it may be; the rate is then that of a gallery of their faces alone.
            attributes: what else to tell of each face.

        Raises:
            AttributeUnavailable: one of `attributes` cannot be told here.
            InvalidRequest: both `fpir` and `threshold`, or a value out of range.
            NoFaceFound: the picture shows none.
        """
        self._reader.check_attributes(attributes)
        check_gallery_name(gallery)
        _check_range("top_k", top_k, 1, MAX_TOP_K)
        if fpir is not None and threshold is not None:
            raise InvalidRequest("fpir and threshold exclude each other", field="threshold")
        if threshold is not None:
            _check_range("threshold", threshold, -1.0, 1.0)
        if fpir is not None and not 0.0 < fpir < 1.0:
            raise InvalidRequest("fpir lies between 0 and 1", field="fpir")
        if among is not None and len(among) > MAX_AMONG:
            raise InvalidRequest(f"at most {MAX_AMONG} person ids are taken", field="person_ids")
        reading = await self._reader.read(picture, max_faces, attributes)
        known, started = reading.picture, time.perf_counter()
        probes = np.stack([face.embedding for face in known.faces])
        results = await self._gallery.search(gallery, probes, top_k, exact=exact, among=among)
        timings = {**reading.timings_ms, "search": ms_since(started)}
        # All probes of one call are searched in one state of the gallery.
        size = results[0].gallery_size if results else 0
        if threshold is None:
            target = fpir or (await self._gallery.settings(gallery)).target_fpir or self._target_fpir
            threshold = self._curve.threshold(target, size)
        achieved = self._curve.fpir(threshold, size)
        faces = tuple(
            IdentifiedFace(
                AnalysedFace(face.detection, face.quality, face.embedding, of_face),
                result.matches,
                _decide(result.matches, threshold, achieved),
            )
            for face, of_face, result in zip(known.faces, reading.attributes, results, strict=True)
        )
        return Identification(
            width=known.width,
            height=known.height,
            faces=faces,
            faces_total=known.faces_total,
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
        attributes: Collection[str] = (),
    ) -> Verification:
        """Compare the one face of a picture with that of another picture, or with an enrolled person.

        Args:
            fmr: target false-match rate of the comparison.
            attributes: what else to tell of the face of each picture.

        Raises:
            AttributeUnavailable: one of `attributes` cannot be told here.
            InvalidRequest: neither or both of `reference` and `person_id`.
            NoFaceFound, SeveralFacesFound, GalleryNotFound, PersonNotFound.
        """
        self._reader.check_attributes(attributes)
        if (reference is None) == (person_id is None):
            raise InvalidRequest("verify takes a second picture or a person_id, one of the two", field="person_id")
        if not 0.0 < fmr < 1.0:
            raise InvalidRequest("fmr lies between 0 and 1", field="fmr")
        probe, of_probe = await self._reader.only_face(picture, 0, self._gate, attributes)
        found, face_id = None, None
        timings = dict(of_probe)
        if reference is not None:
            found, of_reference = await self._reader.only_face(reference, 1, self._gate, attributes)
            timings = summed([of_probe, of_reference])
            started = time.perf_counter()
            vectors = await self._reader.embed([probe, found])
            timings["embed"] = ms_since(started)
            similarity = float(np.clip(vectors[0] @ vectors[1], -1.0, 1.0))
            comparisons = 1
        else:
            assert person_id is not None
            started = time.perf_counter()
            vector = (await self._reader.embed([probe]))[0]
            timings["embed"] = ms_since(started)
            matches = await self._gallery.similarities_to(
                check_gallery_name(gallery), check_person_id(person_id), vector
            )
            similarity, face_id, comparisons = matches[0].similarity, matches[0].face_id, len(matches)
        pictured = [probe] if found is None else [probe, found]
        told = await self._reader.attributes_of(pictured, attributes, timings)
        faces = [
            AnalysedFace(face.detection, face.quality, attributes=of_face)
            for face, of_face in zip(pictured, told, strict=True)
        ]
        # Against a person of several faces the best of them counts, which gives a stranger several chances.
        threshold = self._curve.threshold(fmr, comparisons)
        return Verification(
            same=similarity >= threshold,
            similarity=similarity,
            threshold=threshold,
            false_match_rate=self._curve.fpir(similarity, comparisons),
            probe=faces[0],
            reference=faces[1] if found is not None else None,
            face_id=face_id,
            timings_ms=timings,
        )

    def fpir_of(self, similarity: float, gallery_size: int) -> float:
        """Chance that a stranger's best match in a gallery of this size reaches `similarity`."""
        return self._curve.fpir(similarity, gallery_size)

    def threshold_of(self, rate: float, comparisons: int) -> float:
        """Least cosine that a stranger reaches in at most this share of cases, however many faces are compared."""
        return self._curve.threshold(rate, comparisons)


def _decide(matches: Sequence[Match], threshold: float, fpir: float) -> Decision:
    if matches and matches[0].similarity >= threshold:
        return Decision(identified=True, person_id=matches[0].person_id, threshold=threshold, fpir=fpir)
    return Decision(identified=False, person_id=None, threshold=threshold, fpir=fpir)


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} lies between {low} and {high}", field=field)
