"""Enrolling: pictures in, a person with faces out, and word of whoever else looks like them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from service.calibration import ImpostorCurve
from service.domain import (
    AnalysedFace,
    InvalidRequest,
    LooksLikeAnother,
    Match,
    NewFace,
    Person,
    PersonExists,
    PersonNotFound,
    QualityLevel,
    check_gallery_name,
    check_person_id,
)
from service.identification.faces import FaceReader, crop_digest, ms_since, summed
from service.ports import Gallery, Journal, JournalEntry, SearchResult

# Of the same crop the embeddings differ by rounding, if at all.
_SAME_PICTURE = 0.9999
_LOOKALIKES = 3

# Makes an id of a kind, `p` or `f`, for the so-manieth thing of a request.
NewId = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """The face of one picture of an enrolment.

    Attributes:
        already: the same picture had been enrolled before, and `face_id` is that face's.
    """

    face_id: str
    face: AnalysedFace
    already: bool = False


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A stored person with the faces of the pictures that were sent, in their order.

    Attributes:
        conflicts: other persons of the gallery who look like this one, best first.
        stored: whether anything was; not when all pictures had been enrolled before.
    """

    person: Person
    faces: tuple[EnrolledFace, ...]
    conflicts: tuple[Match, ...]
    stored: bool
    timings_ms: Mapping[str, float]


def fresh_id(kind: str, _: int) -> str:
    """An id that nothing else has."""
    return f"{kind}-{uuid.uuid4().hex}"


class EnrolmentService:
    """Stores people.

    Args:
        curve: impostor scores of the model in use.
        target_fpir: false-positive identification rate of galleries that set none; who looks alike follows from it.
        quality_gate: of galleries that set none.
    """

    def __init__(
        self,
        reader: FaceReader,
        gallery: Gallery,
        journal: Journal,
        curve: ImpostorCurve,
        *,
        target_fpir: float,
        quality_gate: QualityLevel,
    ) -> None:
        self._reader, self._gallery, self._journal, self._curve = reader, gallery, journal, curve
        self._target_fpir, self._quality_gate = target_fpir, quality_gate

    async def enrol(
        self,
        pictures: Sequence[bytes],
        *,
        gallery: str,
        person_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        extend: bool = False,
        on_conflict: Literal["report", "reject"] = "report",
        expires_at: datetime | None = None,
        attributes: Collection[str] = (),
        actor: str = "anonymous",
        new_id: NewId | None = None,
    ) -> Enrolment:
        """Store the one face of each picture under one person; all pictures or none.

        A picture that this person has already, pixel for pixel of the aligned face, is not stored again. Without a
        `person_id`, pictures that are all enrolled under one person answer with that person.

        Args:
            person_id: the caller's id, or None for a fresh one.
            extend: add to a person who may exist already, rather than refuse.
            on_conflict: what to do when somebody else of the gallery looks like the person.
            expires_at: when the faces are to be erased.
            attributes: what else to tell of each face; it is not stored.
            actor: for the journal.
            new_id: makes ids that follow from the request: then a repetition of one that was stored, and whose answer
                was lost, finds what it stored. Fresh ones by default.

        Raises:
            AttributeUnavailable: one of `attributes` cannot be told here.
            InvalidRequest: no picture, a malformed gallery name or person id, or an expiry that has passed.
            NoFaceFound, SeveralFacesFound, QualityTooLow: with the index of the picture, counted from 0.
            PersonExists: the id is taken and `extend` is false.
            LooksLikeAnother: conflicts are to be rejected, and there are some.
        """
        self._reader.check_attributes(attributes)
        check_gallery_name(gallery)
        make_id = new_id or fresh_id
        known = person_id is not None
        person_id = check_person_id(person_id) if person_id is not None else make_id("p", 0)
        if not pictures:
            raise InvalidRequest("at least one picture is needed", field="images")
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidRequest("expires_at lies in the past", field="expires_at")
        settings = await self._gallery.settings(gallery)
        gate = settings.quality_gate or self._quality_gate
        found = [
            await self._reader.only_face(picture, index, gate, attributes) for index, picture in enumerate(pictures)
        ]
        timings = summed([of_picture for _, of_picture in found])
        faces = [face for face, _ in found]
        digests = [crop_digest(face.crop) for face in faces]
        started = time.perf_counter()
        vectors = await self._reader.embed(faces)
        embedded = time.perf_counter()
        # Before anything is stored: if this fails, all of it has.
        told = await self._reader.attributes_of(faces, attributes, timings)
        found_out = time.perf_counter()
        results = await self._gallery.search(gallery, vectors, _LOOKALIKES)
        owners = [await self._owner(gallery, digest, result) for digest, result in zip(digests, results, strict=True)]
        if not known and (owner := _common(owners)) is not None:
            person_id = owner
        conflicts = self._conflicts(person_id, results, settings.target_fpir or self._target_fpir)
        if conflicts and on_conflict == "reject":
            raise LooksLikeAnother(
                "somebody else in the gallery looks like this person",
                conflicts=[{"person_id": each.person_id, "similarity": each.similarity} for each in conflicts],
            )
        searched = time.perf_counter()
        crops = [await self._reader.png_of(face) if settings.keep_crops else None for face in faces]

        def to_store(ids: Sequence[tuple[str, bool]]) -> list[NewFace]:
            return [
                NewFace(face_id, vector, face.quality, digest, expires_at, crop)
                for (face_id, already), face, digest, vector, crop in zip(
                    ids, faces, digests, vectors, crops, strict=True
                )
                if not already
            ]

        ids = _face_ids(digests, [owner[1] if owner and owner[0] == person_id else None for owner in owners], make_id)
        new = to_store(ids)
        try:
            person = await self._stored(gallery, person_id, name, metadata or {}, new, extend=extend, repeatable=new_id)
        except PersonNotFound:
            # Who had all of these pictures has been erased since they were found: they are nobody's now.
            person_id = person_id if known else make_id("p", 0)
            ids = _face_ids(digests, [None] * len(digests), make_id)
            new = to_store(ids)
            person = await self._stored(gallery, person_id, name, metadata or {}, new, extend=extend, repeatable=new_id)
        if new:
            entry = JournalEntry(datetime.now(UTC), actor, "person.enrol", gallery, person_id, {"faces": len(new)})
            await self._journal.note(entry)
        timings |= {
            "embed": (embedded - started) * 1e3,
            "search": (searched - found_out) * 1e3,
            "store": ms_since(searched),
        }
        enrolled = tuple(
            EnrolledFace(face_id, AnalysedFace(face.detection, face.quality, attributes=of_face), already)
            for (face_id, already), face, of_face in zip(ids, faces, told, strict=True)
        )
        return Enrolment(person, enrolled, conflicts, bool(new), timings)

    async def face_to_enrol(self, picture: bytes, *, gallery: str, face_id: str) -> NewFace:
        """The one face of a picture, as `enrol` would store it.

        Raises:
            NoFaceFound, SeveralFacesFound, QualityTooLow, and what the analyser and the embedder raise.
        """
        settings = await self._gallery.settings(gallery)
        face, _ = await self._reader.only_face(picture, 0, settings.quality_gate or self._quality_gate)
        (vector,) = await self._reader.embed([face])
        crop = await self._reader.png_of(face) if settings.keep_crops else None
        return NewFace(face_id, vector, face.quality, crop_digest(face.crop), crop=crop)

    async def _owner(self, gallery: str, digest: str, result: SearchResult) -> tuple[str, str] | None:
        """Person and face id of the very crop of this digest, if it is enrolled."""
        for match in result.matches:
            if match.similarity >= _SAME_PICTURE:
                try:
                    stored = await self._gallery.faces(gallery, match.person_id)
                except PersonNotFound:
                    # Erased since the search.
                    continue
                if any(each.face_id == match.face_id and each.crop_digest == digest for each in stored):
                    return match.person_id, match.face_id
        return None

    async def _stored(
        self,
        gallery: str,
        person_id: str,
        name: str | None,
        metadata: Mapping[str, Any],
        new: Sequence[NewFace],
        *,
        extend: bool,
        repeatable: NewId | None,
    ) -> Person:
        if not new:
            # Everything is there; what is said of the person may still be new, if they may be changed at all.
            person = await self._gallery.person(gallery, person_id)
            if extend and (name is not None or metadata):
                person = await self._gallery.enrol(gallery, person_id, name, metadata, [], extend=True)
            return person
        try:
            return await self._gallery.enrol(gallery, person_id, name, metadata, new, extend=extend)
        except (PersonExists, InvalidRequest):
            # The answer to the same request may have been lost on its way, after all of it was stored.
            if repeatable is None:
                raise
            person = await self._gallery.person(gallery, person_id)
            if not {face.face_id for face in new} <= set(person.face_ids):
                raise
            return person

    def _conflicts(self, person_id: str, results: Sequence[SearchResult], target_fpir: float) -> tuple[Match, ...]:
        best: dict[str, Match] = {}
        for result in results:
            threshold = self._curve.threshold(target_fpir, result.gallery_size)
            for match in result.matches:
                known = best.get(match.person_id)
                if match.person_id != person_id and match.similarity >= threshold:
                    best[match.person_id] = match if known is None or match.similarity > known.similarity else known
        return tuple(sorted(best.values(), key=lambda match: (-match.similarity, match.face_id)))


def _common(owners: Sequence[tuple[str, str] | None]) -> str | None:
    """The one person who has all pictures already."""
    persons = {owner[0] if owner is not None else None for owner in owners}
    return persons.pop() if len(persons) == 1 else None


def _face_ids(digests: Sequence[str], enrolled: Sequence[str | None], make_id: NewId) -> list[tuple[str, bool]]:
    """Id of each picture's face, and whether it was there before, enrolled or earlier among these."""
    ids: dict[str, str] = {}
    found = []
    for index, (digest, face_id) in enumerate(zip(digests, enrolled, strict=True)):
        already = face_id is not None or digest in ids
        ids.setdefault(digest, face_id or make_id("f", index))
        found.append((ids[digest], already))
    return found
