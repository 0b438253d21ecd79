"""The two collections that are kept in Milvus, and the few questions that are asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import SpaceMismatch, StorageUnusable
from service.gallery.milvus.connection import Connection, Consistency, portions
from service.gallery.milvus.rows import (
    DropRow,
    FaceRow,
    Galleries,
    GalleryRow,
    PersonRow,
    face_row,
    face_schema,
    fields_of_drop,
    fields_of_face,
    fields_of_gallery,
    fields_of_last,
    fields_of_people,
    fields_of_person,
    galleries_of,
    key_of,
    people_schema,
    person_row,
)
from service.gallery.records import now_us

# Milvus answers a question with no more rows than this.
ROW_LIMIT = 16_384

_LAYOUT = 2
_SPACE_KEY = "space"
# Neighbours of each node of the graph, and how widely it is searched while being built.
_GRAPH = {"M": 32, "efConstruction": 200}
_LEAST_EFFORT = 256
_HEX_DIGITS = "0123456789abcdef"
_DEEPEST_PREFIX = 8

_OF_GALLERIES = 'kind in ["gallery", "drop", "last"]'
_PERSON_FIELDS = ["person_key", "kind", "gallery", "person_id", "record"]
_FACE_FIELDS = [
    "face_key",
    "gallery",
    "person_key",
    "face_id",
    "position",
    "created_us",
    "expires_us",
    "quality",
    "crop_digest",
]


class Tables:
    """Collections `<prefix>_faces` and `<prefix>_people`; the latter also holds galleries and the space.

    Safe to use from several threads. All methods block, and raise GalleryUnavailable when Milvus does not answer.
    Unless it says otherwise, a question is about faces that have not expired, and is answered by a strong read.

    Args:
        uri: `http://host:19530` of a server or cluster, or the path of a Milvus Lite file.
        token: `user:password` or an API key, empty where none is needed.
        prefix: letters, digits and underscores; what several deployments on one Milvus are told apart by.
        timeout_s: for each call.
    """

    def __init__(self, uri: str, token: str, *, prefix: str, timeout_s: float) -> None:
        self._faces, self._people = f"{prefix}_faces", f"{prefix}_people"
        self._milvus = Connection(uri, token, timeout_s=timeout_s)

    def prepare(self, space_id: str, dimension: int) -> None:
        """Make the collections, or check that those there hold this space.

        Raises:
            SpaceMismatch: they hold another one.
            StorageUnusable: another release has laid them out in another way.
        """
        self._milvus.make(self._faces, face_schema(dimension), "embedding", {"index_type": "HNSW", "params": _GRAPH})
        self._milvus.make(self._people, people_schema(), "nothing", {"index_type": "FLAT"})
        stated = {"space_id": space_id, "dimension": dimension, "layout": _LAYOUT}
        rows = self._milvus.query(self._people, f'person_key == "{_SPACE_KEY}"', ["record"], "Strong", 1)
        if not rows:
            self._milvus.upsert(self._people, [fields_of_people(_SPACE_KEY, "space", "", "", json.dumps(stated))])
            return
        found = json.loads(rows[0]["record"])
        if found.get("layout") != _LAYOUT:
            raise StorageUnusable(
                f"the collections in Milvus have layout {found.get('layout')} and this release keeps layout {_LAYOUT}: "
                "export the galleries with the release that filled them, and import them with this one under another "
                "SHRINKFACE_MILVUS_PREFIX"
            )
        if found != stated:
            raise SpaceMismatch(
                f"Milvus holds embeddings of {found.get('space_id')} with {found.get('dimension')} values, the model "
                f"at hand makes {space_id} with {dimension}: export the gallery's people and enrol them again under "
                "another SHRINKFACE_MILVUS_PREFIX, or serve the model that it was filled with",
                stored_space_id=str(found.get("space_id")),
                space_id=space_id,
            )

    def close(self) -> None:
        """Let go of the connection."""
        self._milvus.close()

    def people(self, keys: Iterable[str], consistency: Consistency) -> dict[str, PersonRow]:
        """Those of some persons who exist, by key."""
        rows = self._milvus.rows_of_keys(self._people, "person_key", keys, _PERSON_FIELDS, consistency)
        return {row["person_key"]: person_row(row) for row in rows}

    def galleries(self) -> Galleries:
        """All galleries."""
        return galleries_of(self._milvus.query(self._people, _OF_GALLERIES, _PERSON_FIELDS, "Strong", ROW_LIMIT))

    def people_and_galleries(self, keys: Iterable[str]) -> tuple[dict[str, PersonRow], Galleries]:
        """Those of some persons who exist, and all galleries, by one strong read if the persons are few."""
        rows = []
        for some in list(portions(keys)) or [[]]:
            condition = f"{_OF_GALLERIES} or person_key in {json.dumps(some)}" if some else _OF_GALLERIES
            rows += self._milvus.query(self._people, condition, _PERSON_FIELDS, "Strong", ROW_LIMIT)
        people = {row["person_key"]: person_row(row) for row in rows if row["kind"] == "person"}
        return people, galleries_of(rows)

    def faces_concerning(self, person_keys: Iterable[str], face_keys: Iterable[str]) -> list[FaceRow]:
        """Faces of some persons, and faces of some keys whoever has them, also expired ones.

        They come without embeddings, in no order.
        """
        found: dict[str, FaceRow] = {}
        conditions = [f"face_key in {json.dumps(some)}" for some in portions(face_keys)]
        for index, some in enumerate(portions(person_keys)):
            condition = f"person_key in {json.dumps(some)}"
            if index < len(conditions):
                conditions[index] += f" or {condition}"
            else:
                conditions.append(condition)
        for condition in conditions:
            for rows in self._everything(condition, embeddings=False):
                found.update({row.face_key: row for row in rows})
        return list(found.values())

    def faces_of(self, person_keys: Iterable[str], *, embeddings: bool = False) -> dict[str, list[FaceRow]]:
        """Faces of some persons, in order of enrolment, by person."""
        found: dict[str, list[FaceRow]] = {}
        for some in portions(person_keys):
            condition = f"person_key in {json.dumps(some)} and {_unexpired()}"
            for rows in self._everything(condition, embeddings=embeddings):
                for row in rows:
                    found.setdefault(row.person_key, []).append(row)
        for faces in found.values():
            faces.sort(key=lambda row: row.position)
        return found

    def all_faces(self, gallery: str, about: int) -> Iterator[list[FaceRow]]:
        """Every face of a gallery with its embedding, some thousands at a time.

        Args:
            gallery: a valid name.
            about: how many they are, as far as known; decides the size of the portions.
        """
        return self._everything(_of_gallery(gallery), embeddings=True, about=about)

    def nearest(
        self, gallery: str, probes: NDArray[np.float32], limit: int, consistency: Consistency
    ) -> list[list[tuple[FaceRow, float]]]:
        """The graph's answer for each of (n, d) probes: up to `limit` faces and their inner products, best first."""
        answers = self._milvus.nearest(
            self._faces,
            probes,
            _of_gallery(gallery),
            ["face_key", "person_key", "face_id", "embedding"],
            limit=limit,
            effort=max(limit, _LEAST_EFFORT),
            consistency=consistency,
        )
        return [
            [(face_row({**hit["entity"], "gallery": gallery}), float(hit["distance"])) for hit in hits]
            for hits in answers
        ]

    def count_faces(self, gallery: str) -> int:
        """Faces of a gallery."""
        return self._milvus.count(self._faces, _of_gallery(gallery))

    def count_persons(self, gallery: str, after: str = "") -> int:
        """Persons of a gallery whose id is behind `after`."""
        return self._milvus.count(self._people, _persons_filter(gallery, after))

    def persons_between(self, gallery: str, after: str, upto: str | None) -> list[PersonRow]:
        """Persons behind `after` and up to `upto`, in no order; ROW_LIMIT of them mean that there may be more."""
        condition = _persons_filter(gallery, after) + ("" if upto is None else f" and person_id <= {json.dumps(upto)}")
        rows = self._milvus.query(self._people, condition, _PERSON_FIELDS, "Strong", ROW_LIMIT)
        return [person_row(row) for row in rows]

    def sampled_ids(self, gallery: str, after: str, share: float) -> list[str]:
        """About `share` of the ids behind `after`, drawn evenly."""
        bound = f"{int(min(share, 1 - 1e-9) * 16**8):08x}"
        condition = f'{_persons_filter(gallery, after)} and person_key < "{bound}"'
        rows = self._milvus.query(self._people, condition, ["person_id"], "Strong", ROW_LIMIT)
        return [row["person_id"] for row in rows]

    def expired_faces(self, limit: int) -> list[FaceRow]:
        """Up to `limit` faces that have expired, of any gallery, without embeddings."""
        condition = f"expires_us > 0 and expires_us <= {now_us()}"
        return [face_row(row) for row in self._milvus.query(self._faces, condition, _FACE_FIELDS, "Strong", limit)]

    def some_person_keys(self, gallery: str, limit: int) -> list[str]:
        """Keys of up to `limit` persons of a gallery, whichever."""
        rows = self._milvus.query(self._people, _persons_filter(gallery, ""), ["person_key"], "Strong", limit)
        return [row["person_key"] for row in rows]

    def some_face_keys(self, gallery: str, limit: int) -> dict[str, str]:
        """Crop digests, by key, of up to `limit` faces of a gallery, whichever, also expired ones."""
        fields = ["face_key", "crop_digest"]
        rows = self._milvus.query(self._faces, f'gallery == "{gallery}"', fields, "Strong", limit)
        return {row["face_key"]: row["crop_digest"] for row in rows}

    def delete_people(self, keys: Iterable[str]) -> None:
        """Erase persons' rows."""
        self._milvus.delete(self._people, keys)

    def delete_faces(self, keys: Iterable[str]) -> None:
        """Erase faces."""
        self._milvus.delete(self._faces, keys)

    def insert_faces(self, faces: Sequence[FaceRow]) -> None:
        """Store faces whose keys are free."""
        self._milvus.insert(self._faces, [fields_of_face(face) for face in faces])

    def store_people(
        self, people: Iterable[PersonRow], galleries: Mapping[str, GalleryRow], drops: Mapping[str, DropRow]
    ) -> None:
        """Store or replace rows of persons, galleries and drops."""
        rows = [fields_of_person(person) for person in people]
        rows += [fields_of_gallery(name, row) for name, row in galleries.items()]
        rows += [fields_of_drop(name, row) for name, row in drops.items()]
        self._milvus.upsert(self._people, rows)

    def end_galleries(self, names: Iterable[str], last: int) -> None:
        """Erase the rows of galleries whose persons and faces are erased, and remember the highest revision."""
        keys = [key_of(kind, name) for name in names for kind in ("gallery", "drop")]
        if keys:
            self._milvus.upsert(self._people, [fields_of_last(last)])
            self._milvus.delete(self._people, keys)

    def _everything(self, condition: str, *, embeddings: bool, about: int = 0) -> Iterator[list[FaceRow]]:
        """All faces that a condition selects, in portions by the beginning of their evenly spread keys."""
        fields = [*_FACE_FIELDS, "embedding"] if embeddings else _FACE_FIELDS
        depth = 0
        while about / 16**depth > ROW_LIMIT / 2 and depth < _DEEPEST_PREFIX:
            depth += 1
        prefixes = [""]
        for _ in range(depth):
            prefixes = [prefix + digit for prefix in prefixes for digit in _HEX_DIGITS]
        prefixes.reverse()
        while prefixes:
            prefix = prefixes.pop()
            # "g" stands behind every digit.
            part = f'({condition}) and face_key >= "{prefix}" and face_key < "{prefix}g"' if prefix else condition
            rows = self._milvus.query(self._faces, part, fields, "Strong", ROW_LIMIT)
            if len(rows) == ROW_LIMIT and len(prefix) < _DEEPEST_PREFIX:
                prefixes += [prefix + digit for digit in reversed(_HEX_DIGITS)]
            else:
                yield [face_row(row) for row in rows]


def _unexpired() -> str:
    return f"(expires_us == 0 or expires_us > {now_us()})"


def _of_gallery(gallery: str) -> str:
    return f'gallery == "{gallery}" and {_unexpired()}'


def _persons_filter(gallery: str, after: str) -> str:
    return f'kind == "person" and gallery == "{gallery}" and person_id > {json.dumps(after)}'
