"""From probes to persons: Milvus proposes, exact cosines decide."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import GALLERY_NAME, PERSON_ID, Match
from service.gallery.milvus.connection import Consistency
from service.gallery.milvus.recent import Recent, RecentFaces
from service.gallery.milvus.rows import FaceRow, PersonRow, person_key_of
from service.gallery.milvus.tables import ROW_LIMIT, Tables
from service.gallery.vectors import cosines
from service.ports import SearchResult

_FACES_ASKED = 128
_ROUND_GROWTH = 8
# Scores that are closer than this may change places when they are computed exactly.
_ROUNDING = 1e-4

_People = dict[str, PersonRow | None]


class Search:
    """Searches one deployment's galleries. Blocks; safe to call from several threads."""

    def __init__(self, tables: Tables, recent: Recent) -> None:
        self._tables = tables
        self._recent = recent

    def run(self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool) -> list[SearchResult]:
        """See `Gallery.search`, for a gallery that exists and (n, d) probes of unit length."""
        # Looked at before Milvus is: what is forgotten here in between is visible there.
        recent, known, size = self._recent.view(gallery)
        if not size:
            return _nobody(probes)
        people: _People = dict(known)
        answers: dict[int, list[Match]] = {}
        waiting, asked = list(range(len(probes))), max(_FACES_ASKED, 4 * top_k)
        while waiting and not exact and asked <= ROW_LIMIT:
            found = self._tables.nearest(gallery, probes[waiting], asked, recent.consistency)
            for probe, hits in zip(list(waiting), found, strict=True):
                faces = [face for face, _ in hits]
                matches = self._ranked(probes[probe], faces, recent, people, top_k)
                # A short answer is all there is. A full one may hide persons behind others' many faces, or a face
                # that ties with the last place.
                if len(hits) < asked or (len(matches) == top_k and hits[-1][1] < matches[-1].similarity - _ROUNDING):
                    answers[probe] = matches
                    waiting.remove(probe)
            asked *= _ROUND_GROWTH
        if waiting:
            answers |= self._scanned(gallery, probes, waiting, recent, people, top_k, size)
        return [SearchResult(tuple(answers[probe]), size) for probe in range(len(probes))]

    def among(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, person_ids: Collection[str]
    ) -> list[SearchResult]:
        """See `Gallery.search` for what `among` means; reads strongly."""
        named = {person_id for person_id in person_ids if PERSON_ID.fullmatch(person_id)}
        if not named or not GALLERY_NAME.fullmatch(gallery):
            return _nobody(probes)
        found, galleries = self._tables.people_and_galleries({person_key_of(gallery, name) for name in named})
        if gallery not in galleries.existing:
            return _nobody(probes)
        people: _People = dict(found)
        faces = [face for rows in self._tables.faces_of(found, embeddings=True).values() for face in rows]
        nothing = RecentFaces.none()
        return [SearchResult(tuple(self._ranked(probe, faces, nothing, people, top_k)), len(faces)) for probe in probes]

    def _scanned(
        self,
        gallery: str,
        probes: NDArray[np.float32],
        chosen: Sequence[int],
        recent: RecentFaces,
        people: _People,
        top_k: int,
        size: int,
    ) -> dict[int, list[Match]]:
        """Every face of the gallery against the chosen probes; a portion leaves its best persons only."""
        kept: dict[int, list[FaceRow]] = {probe: [] for probe in chosen}
        for portion in self._tables.all_faces(gallery, size):
            for probe in chosen:
                faces = {face.face_key: face for face in (*kept[probe], *portion)}
                best = self._ranked(probes[probe], list(faces.values()), recent, people, top_k)
                names = {match.face_id for match in best}
                kept[probe] = [face for face in faces.values() if face.face_id in names]
        return {probe: self._ranked(probes[probe], kept[probe], recent, people, top_k) for probe in chosen}

    def _ranked(
        self,
        probe: NDArray[np.float32],
        proposed: Sequence[FaceRow],
        recent: RecentFaces,
        people: _People,
        top_k: int,
    ) -> list[Match]:
        """The best persons among proposed and recent faces, by exact cosine, ties by face id."""
        faces = [f for f in proposed if f.face_key not in recent.removed and f.face_key not in recent.faces]
        embeddings = np.stack([face.embedding for face in faces]) if faces else np.empty((0, len(probe)), np.float32)
        if recent.faces:
            faces += recent.faces.values()
            embeddings = np.concatenate([embeddings, recent.embeddings])
        scores = embeddings @ probe
        order = np.argsort(-scores, kind="stable")
        chosen = self._promising(faces, scores, order, people, top_k, recent.consistency)
        exact = cosines(embeddings[chosen], probe).tolist()
        ranked = sorted(zip(exact, (faces[row] for row in chosen), strict=True), key=lambda x: (-x[0], x[1].face_id))
        best: dict[str, Match] = {}
        for score, face in ranked:
            person = people[face.person_key]
            if person is not None and face.person_key not in best:
                best[face.person_key] = Match(person.person_id, face.face_id, score, person.name)
                if len(best) == top_k:
                    break
        return list(best.values())

    def _promising(
        self,
        faces: Sequence[FaceRow],
        scores: NDArray[np.float32],
        order: NDArray[np.int64],
        people: _People,
        top_k: int,
        consistency: Consistency,
    ) -> list[int]:
        """Rows whose exact score may be among the best `top_k` persons' own; their persons are looked up."""
        chosen: list[int] = []
        persons: set[str] = set()
        floor = -np.inf
        for start in range(0, len(order), _FACES_ASKED):
            portion = order[start : start + _FACES_ASKED].tolist()
            if scores[portion[0]] < floor:
                break
            unknown = {faces[row].person_key for row in portion} - people.keys()
            if unknown:
                found: Mapping[str, PersonRow] = self._tables.people(unknown, consistency)
                # A face whose person has no row belongs to nobody: they were erased, or never wholly enrolled.
                people.update({key: found.get(key) for key in unknown})
            for row in portion:
                if scores[row] < floor:
                    break
                chosen.append(row)
                if people[faces[row].person_key] is not None:
                    persons.add(faces[row].person_key)
                if len(persons) == top_k and floor == -np.inf:
                    floor = float(scores[row]) - _ROUNDING
        return chosen


def _nobody(probes: NDArray[np.float32]) -> list[SearchResult]:
    return [SearchResult((), 0) for _ in probes]
