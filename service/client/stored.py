"""Calls about what is stored: galleries, persons, faces, the journal.

Signatures and docstrings are those of the clients' methods. Every call may raise ProblemError, Unreachable and
UnexpectedAnswer. What changes something is sent again only where the service cannot have begun it: a deletion that was
done would be answered `person-not-found` the second time, and its receipt lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar

import httpx

from service.client.calls import Call, Page, given, parsed, path_of, reading
from service.client.errors import UnexpectedAnswer
from service.client.models import (
    Answer,
    Dossier,
    Gallery,
    Health,
    JournalEntry,
    Person,
    Receipt,
    StoredFace,
)

QualityGate = Literal["off", "standard", "strict"]

T = TypeVar("T")


class Unchanged(Enum):
    """Says of a value that it stays as it is, where None would be a value."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class _Galleries(Answer):
    galleries: tuple[Gallery, ...]


class _Persons(Answer):
    persons: tuple[Person, ...]
    next_cursor: str | None


class _Faces(Answer):
    faces: tuple[StoredFace, ...]


class _Journal(Answer):
    entries: tuple[JournalEntry, ...]
    next_cursor: str | None


def ready() -> Call[Health]:
    """Return when the service is ready; raises the problem `not-ready` when it is not."""
    return _read("/health/ready", reading(Health))


def galleries() -> Call[tuple[Gallery, ...]]:
    """All galleries that the API key is for, by name."""
    return _read(path_of("galleries"), lambda response: parsed(_Galleries, response.content).galleries)


def gallery(name: str) -> Call[Gallery]:
    """One gallery. Raises the problem `gallery-not-found`."""
    return _read(path_of("galleries", name), reading(Gallery))


def create_gallery(
    name: str,
    *,
    target_fpir: float | None = None,
    quality_gate: QualityGate | None = None,
    keep_crops: bool = False,
) -> Call[Gallery]:
    """Begin an empty gallery with settings of its own; None follows the service's default.

    Args:
        target_fpir: false-positive identification rate that thresholds follow from.
        quality_gate: what a face must have to be enrolled.
        keep_crops: keep aligned crops, so that a change of model can embed them anew.
    """
    body = {"name": name, "target_fpir": target_fpir, "quality_gate": quality_gate, "keep_crops": keep_crops}
    return Call(method="POST", path=path_of("galleries"), read=reading(Gallery), json=body)


def configure_gallery(
    name: str,
    *,
    target_fpir: float | Unchanged | None = UNCHANGED,
    quality_gate: QualityGate | Unchanged | None = UNCHANGED,
    keep_crops: bool | Unchanged = UNCHANGED,
    if_match: int | None = None,
) -> Call[Gallery]:
    """Change settings of a gallery; None follows the service's default, and what is not given stays.

    Args:
        if_match: change only this revision of it; otherwise the problem is `revision-mismatch`.
    """
    body = _changed({"target_fpir": target_fpir, "quality_gate": quality_gate, "keep_crops": keep_crops})
    path = path_of("galleries", name)
    return Call(method="PATCH", path=path, read=reading(Gallery), json=body, headers=_condition(if_match))


def delete_gallery(name: str, *, if_match: int | None = None) -> Call[Receipt]:
    """Erase everybody in a gallery, everywhere, and the gallery. For `if_match` see `configure_gallery`."""
    return _deletion(path_of("galleries", name), if_match)


def persons(
    gallery: str,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    page_size: int = 500,
) -> Call[Page[Person]]:
    """Yields the persons of a gallery by id, asking for a page at a time.

    Args:
        name: a part of the name, in any case.
        metadata: top-level values that a person must have.
        page_size: 1 to 1000.
    """
    conditions = {f"metadata.{key}": _spelt(value) for key, value in (metadata or {}).items()}
    path, params = path_of("galleries", gallery, "persons"), {"limit": page_size, "name": name, **conditions}

    def split(content: bytes) -> tuple[tuple[Person, ...], str | None]:
        page = parsed(_Persons, content)
        return page.persons, page.next_cursor

    return _listing(path, params, split)


def person(gallery: str, person_id: str) -> Call[Person]:
    """One person. Raises the problem `person-not-found`."""
    return _read(path_of("galleries", gallery, "persons", person_id), reading(Person))


def add_person(
    gallery: str,
    person_id: str | None = None,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Call[Person]:
    """Store somebody whose faces come later, by `enrol` with `on_existing="extend"`."""
    body = given({"person_id": person_id, "name": name, "metadata": None if metadata is None else dict(metadata)})
    return Call(method="POST", path=path_of("galleries", gallery, "persons"), read=reading(Person), json=body)


def update_person(
    gallery: str,
    person_id: str,
    *,
    name: str | Unchanged | None = UNCHANGED,
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED,
    if_match: int | None = None,
) -> Call[Person]:
    """Change a person's name, which None takes away, or all of their metadata; what is not given stays.

    Args:
        if_match: change only this revision of them; otherwise the problem is `revision-mismatch`.
    """
    body = _changed({"name": name, "metadata": metadata})
    path = path_of("galleries", gallery, "persons", person_id)
    return Call(method="PATCH", path=path, read=reading(Person), json=body, headers=_condition(if_match))


def delete_person(gallery: str, person_id: str, *, if_match: int | None = None) -> Call[Receipt]:
    """Erase a person everywhere. For `if_match` see `update_person`."""
    return _deletion(path_of("galleries", gallery, "persons", person_id), if_match)


def export_person(gallery: str, person_id: str) -> Call[Dossier]:
    """All that is stored of a person. The service notes in its journal that somebody asked."""
    return _read(path_of("galleries", gallery, "persons", person_id, "export"), reading(Dossier))


def faces(gallery: str, person_id: str) -> Call[tuple[StoredFace, ...]]:
    """A person's faces, in the order of enrolment."""
    path = path_of("galleries", gallery, "persons", person_id, "faces")
    return _read(path, lambda response: parsed(_Faces, response.content).faces)


def delete_face(gallery: str, person_id: str, face_id: str, *, if_match: int | None = None) -> Call[Receipt]:
    """Erase one face everywhere; the person stays. `if_match` is a revision of the person."""
    return _deletion(path_of("galleries", gallery, "persons", person_id, "faces", face_id), if_match)


def crop(gallery: str, person_id: str, face_id: str) -> Call[bytes]:
    """The aligned crop of a face, a PNG file. Raises the problem `crop-not-kept`."""
    path = path_of("galleries", gallery, "persons", person_id, "faces", face_id, "crop")
    return _read(path, lambda response: response.content)


def journal(
    *, gallery: str | None = None, person_id: str | None = None, page_size: int = 500
) -> Call[Page[JournalEntry]]:
    """Yields who changed what, newest first, asking for a page at a time; of one gallery or person, if given."""
    params = {"gallery": gallery, "person_id": person_id, "limit": page_size}

    def split(content: bytes) -> tuple[tuple[JournalEntry, ...], str | None]:
        page = parsed(_Journal, content)
        return page.entries, page.next_cursor

    return _listing(path_of("journal"), params, split)


def _listing(
    path: str,
    params: Mapping[str, Any],
    split: Callable[[bytes], tuple[Sequence[T], str | None]],
    cursor: str | None = None,
) -> Call[Page[T]]:
    def read(response: httpx.Response) -> Page[T]:
        items, following = split(response.content)
        if following is not None and following == cursor:
            raise UnexpectedAnswer("a page says of itself that it comes next")
        return Page(items, lambda: None if following is None else _listing(path, params, split, following))

    return _read(path, read, {**params, "cursor": cursor})


def _read(path: str, read: Callable[[httpx.Response], T], params: Mapping[str, Any] | None = None) -> Call[T]:
    return Call(method="GET", path=path, read=read, repeatable=True, params=params or {})


def _deletion(path: str, if_match: int | None) -> Call[Receipt]:
    return Call(method="DELETE", path=path, read=reading(Receipt), headers=_condition(if_match))


def _condition(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"r{revision}"'}


def _changed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not UNCHANGED}


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
