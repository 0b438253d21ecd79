"""The two collections that are kept in Milvus, and the few questions that are asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from service.domain import GalleryUnavailable, SpaceMismatch
from service.gallery.milvus.rows import (
    FaceRow,
    PersonRow,
    face_row,
    face_schema,
    fields_of_face,
    fields_of_people,
    key_of,
    people_schema,
    person_row,
    record_of,
)

# Milvus answers a question with no more rows than this.
ROW_LIMIT = 16_384

# "Strong" waits until all that was written before is visible (some 0.4 s on a server), "Eventually" waits for nothing.
Consistency = Literal["Strong", "Eventually"]

_SPACE_KEY = "space"
_KEYS_AT_ONCE = 1_000
_ROWS_AT_ONCE = 2_000
# Neighbours of each node of the graph, and how widely it is searched while being built.
_GRAPH = {"M": 32, "efConstruction": 200}
_LEAST_EFFORT = 256
_HEX_DIGITS = "0123456789abcdef"
_DEEPEST_PREFIX = 8


class Tables:
    """Collections `<prefix>_faces` and `<prefix>_people`; the latter also holds a row a gallery and one of the space.

    Safe to use from several threads. All methods block, and raise GalleryUnavailable when Milvus does not answer.

    Args:
        uri: `http://host:19530` of a server or cluster, or the path of a Milvus Lite file.
        token: `user:password` or an API key, empty where none is needed.
        prefix: letters, digits and underscores; what several deployments on one Milvus are told apart by.
        timeout_s: for each call.
    """

    def __init__(self, uri: str, token: str, *, prefix: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._faces, self._people = f"{prefix}_faces", f"{prefix}_people"
        with _milvus_errors():
            self._client = MilvusClient(uri, token=token, timeout=timeout_s)

    def prepare(self, space_id: str, dimension: int) -> None:
        """Make the collections, or check that those there hold this space. Raises SpaceMismatch."""
        self._make(self._faces, face_schema(dimension), "embedding", {"index_type": "HNSW", "params": _GRAPH})
        self._make(self._people, people_schema(), "nothing", {"index_type": "FLAT"})
        stated = {"space_id": space_id, "dimension": dimension, "layout": 1}
        rows = self._query(self._people, f'person_key == "{_SPACE_KEY}"', ["record"], "Strong", 1)
        if not rows:
            self._upsert_people([fields_of_people(_SPACE_KEY, "space", "", "", json.dumps(stated))])
            return
        found = json.loads(rows[0]["record"])
        if found != stated:
            raise SpaceMismatch(
                f"Milvus holds embeddings of {found.get('space_id')} with {found.get('dimension')} values, the model "
                f"at hand makes {space_id} with {dimension}: export the gallery's people and enrol them again under "
                "another SHRINKFACE_MILVUS_PREFIX, or serve the model that it was filled with",
                stored=str(found.get("space_id")),
                expected=space_id,
            )

    def close(self) -> None:
        """Let go of the connection."""
        with _milvus_errors():
            self._client.close()

    def people(self, keys: Iterable[str], consistency: Consistency) -> dict[str, PersonRow]:
        """Those of some persons who exist, by key."""
        fields = ["person_key", "gallery", "person_id", "record"]
        rows = self._by_keys(self._people, "person_key", keys, fields, consistency)
        return {row["person_key"]: person_row(row) for row in rows}

    def revisions(self) -> dict[str, int]:
        """Revision of each gallery that exists."""
        rows = self._query(self._people, 'kind == "gallery"', ["gallery", "record"], "Strong", ROW_LIMIT)
        return {row["gallery"]: int(json.loads(row["record"])["revision"]) for row in rows}

    def people_and_revisions(self, keys: Iterable[str]) -> tuple[dict[str, PersonRow], dict[str, int]]:
        """Those of some persons who exist, and every gallery's revision, by one strong read if the persons are few."""
        fields = ["person_key", "kind", "gallery", "person_id", "record"]
        people: dict[str, PersonRow] = {}
        revisions: dict[str, int] = {}
        for some in list(_portions(keys)) or [[]]:
            condition = f'kind == "gallery" or person_key in {json.dumps([*some, ""])}'
            for row in self._query(self._people, condition, fields, "Strong", ROW_LIMIT):
                if row["kind"] == "gallery":
                    revisions[row["gallery"]] = int(json.loads(row["record"])["revision"])
                else:
                    people[row["person_key"]] = person_row(row)
        return people, revisions

    def faces_concerning(self, person_keys: Iterable[str], face_keys: Iterable[str]) -> list[FaceRow]:
        """Faces of some persons, and faces of some keys whoever has them; without embeddings, in no order."""
        found: dict[str, FaceRow] = {}
        conditions = [f"face_key in {json.dumps(some)}" for some in _portions(face_keys)]
        for index, some in enumerate(_portions(person_keys)):
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
        for some in _portions(person_keys):
            for rows in self._everything(f"person_key in {json.dumps(some)}", embeddings=embeddings):
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
        return self._everything(f'gallery == "{gallery}"', embeddings=True, about=about)

    def nearest(self, gallery: str, probes: NDArray[np.float32], limit: int) -> list[list[tuple[FaceRow, float]]]:
        """The graph's answer for each of (n, d) probes: up to `limit` faces and their inner products, best first.

        It sees what Milvus has made visible so far.
        """
        with _milvus_errors():
            answers = self._client.search(
                self._faces,
                data=[probe.tolist() for probe in probes],
                anns_field="embedding",
                filter=f'gallery == "{gallery}"',
                limit=limit,
                output_fields=["face_key", "person_key", "face_id", "embedding"],
                search_params={"metric_type": "IP", "params": {"ef": max(limit, _LEAST_EFFORT)}},
                consistency_level="Eventually",
                timeout=self._timeout_s,
            )
        return [
            [(face_row({**hit["entity"], "gallery": gallery}), float(hit["distance"])) for hit in hits]
            for hits in answers
        ]

    def count_faces(self, gallery: str) -> int:
        """Faces of a gallery, all that is acknowledged."""
        return self._count(self._faces, f'gallery == "{gallery}"')

    def count_persons(self, gallery: str, after: str = "") -> int:
        """Persons of a gallery whose id is behind `after`."""
        return self._count(self._people, _persons_filter(gallery, after))

    def persons_between(self, gallery: str, after: str, upto: str | None) -> list[PersonRow]:
        """Persons behind `after` and up to `upto`, in no order; ROW_LIMIT of them mean that there may be more."""
        condition = _persons_filter(gallery, after) + ("" if upto is None else f" and person_id <= {json.dumps(upto)}")
        fields = ["person_key", "gallery", "person_id", "record"]
        return [person_row(row) for row in self._query(self._people, condition, fields, "Strong", ROW_LIMIT)]

    def sampled_ids(self, gallery: str, after: str, share: float) -> list[str]:
        """About `share` of the ids behind `after`, drawn evenly."""
        bound = f"{int(min(share, 1 - 1e-9) * 16**8):08x}"
        condition = f'{_persons_filter(gallery, after)} and person_key < "{bound}"'
        return [row["person_id"] for row in self._query(self._people, condition, ["person_id"], "Strong", ROW_LIMIT)]

    def delete_people(self, keys: Iterable[str]) -> None:
        """Erase persons' rows."""
        self._delete(self._people, keys)

    def delete_faces(self, keys: Iterable[str]) -> None:
        """Erase faces."""
        self._delete(self._faces, keys)

    def insert_faces(self, faces: Sequence[FaceRow]) -> None:
        """Store faces whose keys are free."""
        for start in range(0, len(faces), _ROWS_AT_ONCE):
            rows = [fields_of_face(face) for face in faces[start : start + _ROWS_AT_ONCE]]
            with _milvus_errors():
                self._client.insert(self._faces, rows, timeout=self._timeout_s)

    def store_people(self, people: Iterable[PersonRow], revisions: dict[str, int]) -> None:
        """Store or replace persons' rows, and galleries'."""
        rows = [
            fields_of_people(person.person_key, "person", person.gallery, person.person_id, record_of(person))
            for person in people
        ]
        rows += [
            fields_of_people(key_of("gallery", gallery), "gallery", gallery, "", json.dumps({"revision": revision}))
            for gallery, revision in revisions.items()
        ]
        self._upsert_people(rows)

    def _everything(self, condition: str, *, embeddings: bool, about: int = 0) -> Iterator[list[FaceRow]]:
        """All faces that a condition selects, in portions by the beginning of their evenly spread keys."""
        fields = ["face_key", "gallery", "person_key", "face_id", "position", "quality", "crop_digest"]
        fields += ["embedding"] if embeddings else []
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
            rows = self._query(self._faces, part, fields, "Strong", ROW_LIMIT)
            if len(rows) == ROW_LIMIT and len(prefix) < _DEEPEST_PREFIX:
                prefixes += [prefix + digit for digit in reversed(_HEX_DIGITS)]
            else:
                yield [face_row(row) for row in rows]

    def _by_keys(
        self, table: str, field: str, keys: Iterable[str], fields: list[str], consistency: Consistency
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for some in _portions(keys):
            rows += self._query(table, f"{field} in {json.dumps(some)}", fields, consistency, len(some))
        return rows

    def _query(
        self, table: str, condition: str, fields: list[str], consistency: Consistency, limit: int
    ) -> list[dict[str, Any]]:
        with _milvus_errors():
            return list(
                self._client.query(
                    table,
                    filter=condition,
                    output_fields=fields,
                    limit=limit,
                    consistency_level=consistency,
                    timeout=self._timeout_s,
                )
            )

    def _count(self, table: str, condition: str) -> int:
        with _milvus_errors():
            rows = self._client.query(
                table,
                filter=condition,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return int(rows[0]["count(*)"])

    def _delete(self, table: str, keys: Iterable[str]) -> None:
        for some in _portions(keys):
            with _milvus_errors():
                self._client.delete(table, ids=some, timeout=self._timeout_s)

    def _upsert_people(self, rows: list[dict[str, Any]]) -> None:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            with _milvus_errors():
                self._client.upsert(self._people, rows[start : start + _ROWS_AT_ONCE], timeout=self._timeout_s)

    def _make(self, table: str, schema: Any, vector: str, index: dict[str, Any]) -> None:
        with _milvus_errors():
            if not self._client.has_collection(table):
                wanted = self._client.prepare_index_params()
                wanted.add_index(vector, metric_type="IP", **index)
                try:
                    self._client.create_collection(
                        table, schema=schema, index_params=wanted, consistency_level="Strong", timeout=self._timeout_s
                    )
                except MilvusException:
                    # Another replica that starts at the same moment may have been faster.
                    if not self._client.has_collection(table):
                        raise
            self._client.load_collection(table, timeout=self._timeout_s)


@contextmanager
def _milvus_errors() -> Iterator[None]:
    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        raise GalleryUnavailable(f"Milvus does not answer as it should ({type(error).__name__})") from error


def _portions(keys: Iterable[str]) -> Iterator[list[str]]:
    wanted = list(keys)
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        yield wanted[start : start + _KEYS_AT_ONCE]


def _persons_filter(gallery: str, after: str) -> str:
    return f'kind == "person" and gallery == "{gallery}" and person_id > {json.dumps(after)}'
