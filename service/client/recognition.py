"""Calls that take pictures. Their signatures and docstrings are those of the clients' methods.

A picture is its bytes, a file's path, or an http or https address, which the client fetches itself and without its API
key. One that cannot be read raises OSError, one that cannot be fetched PictureNotFetched, one that is too large to be
sent InvalidArgument. What is left out follows the service's defaults.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

import httpx

from service.client.calls import Call, Page, given, parsed, reading
from service.client.models import (
    Answer,
    BatchItem,
    DetectedFaces,
    EmbeddedFaces,
    EnrolItem,
    Enrolment,
    Identification,
    IdentifyItem,
    Verification,
)
from service.client.pictures import Picture, batched, content_of, contents_of

OnExisting = Literal["reject", "extend"]
OnConflict = Literal["report", "reject"]

T = TypeVar("T")
GroupedT = TypeVar("GroupedT")
ItemT = TypeVar("ItemT", bound=BatchItem)
Reader = Callable[[httpx.Response], T]


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Somebody to enrol by `enrol_many`, with the arguments of `enrol`."""

    images: Picture | Sequence[Picture]
    person_id: str | None = None
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_existing: OnExisting = "extend"
    on_conflict: OnConflict = "report"
    expires_at: datetime | None = None


class _IdentifyItems(Answer):
    items: tuple[IdentifyItem, ...]


class _EnrolItems(Answer):
    items: tuple[EnrolItem, ...]


def enrol(
    images: Picture | Sequence[Picture],
    *,
    person_id: str | None = None,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    gallery: str | None = None,
    on_existing: OnExisting | None = None,
    on_conflict: OnConflict | None = None,
    expires_at: datetime | None = None,
    attributes: Sequence[str] = (),
    idempotency_key: str | None = None,
) -> Call[Enrolment]:
    """Store the one face of each picture under one person. Returns when that is on the service's disk.

    Args:
        images: one picture or several, of one person.
        person_id: yours, or a fresh one.
        metadata: any JSON object.
        gallery: created by its first enrolment.
        on_existing: when the person exists: `reject` raises the problem `person-exists`, `extend` adds the faces.
        on_conflict: when somebody else looks like the person: `report` says so in the result, `reject` raises
            `looks-like-another`.
        expires_at: when the faces are to be erased; with a time zone.
        attributes: what else to tell of each face: `mask`, and what the service has networks for, as
            `ready().model.attributes` says.
        idempotency_key: for a day, a repetition with the same one stores nothing again. Made for every call unless
            given, so that the call itself can be sent again after an answer was lost.

    Raises:
        ProblemError: such as `no-face`, `several-faces`, `quality-too-low`.
        Unreachable, UnexpectedAnswer.
    """
    return Call(
        method="POST",
        path="/enroll",
        read=reading(Enrolment),
        repeatable=True,
        headers={"Idempotency-Key": idempotency_key if idempotency_key is not None else uuid.uuid4().hex},
        pictures=[("images", content) for content in contents_of(images)],
        form={
            "person_id": person_id,
            "name": name,
            "metadata": None if metadata is None else _json(metadata),
            "gallery": gallery,
            "on_existing": on_existing,
            "on_conflict": on_conflict,
            "expires_at": _time(expires_at),
            "attributes": _named(attributes),
        },
    )


def identify(
    image: Picture,
    *,
    gallery: str | None = None,
    top_k: int | None = None,
    fpir: float | None = None,
    threshold: float | None = None,
    max_faces: int | None = None,
    exact: bool = False,
    person_ids: Sequence[str] | None = None,
    attributes: Sequence[str] = (),
) -> Call[Identification]:
    """Who is in a picture: every face with its candidates and a decision. Nobody known is a result, not an error.

    Args:
        top_k: candidates listed for each face.
        fpir: the false-positive identification rate to decide at, or
        threshold: the cosine.
        max_faces: look at the largest so many faces only.
        exact: compare with every face, however large the gallery.
        person_ids: the only persons whom it may be.
        attributes: what else to tell of each face: `mask`, and what the service has networks for, as
            `ready().model.attributes` says.

    Raises:
        ProblemError: such as `no-face`, `attribute-unavailable`.
        Unreachable, UnexpectedAnswer.
    """
    form = _identify_form(gallery, top_k, fpir, threshold, max_faces, exact, person_ids, attributes)
    return _asked("/identify", reading(Identification), [("image", content_of(image))], form)


def verify(
    image: Picture,
    reference: Picture | None = None,
    *,
    person_id: str | None = None,
    gallery: str | None = None,
    fmr: float | None = None,
    attributes: Sequence[str] = (),
) -> Call[Verification]:
    """Whether a picture shows the same person as another, or as somebody enrolled.

    Args:
        reference: the other picture, or
        person_id: the person enrolled.
        fmr: the false-match rate to decide at.
        attributes: see `identify`.

    Raises:
        ProblemError: such as `no-face`, `several-faces`, `person-not-found`.
        Unreachable, UnexpectedAnswer.
    """
    pictures = [("image", content_of(image))]
    if reference is not None:
        pictures.append(("reference", content_of(reference)))
    form = {"person_id": person_id, "gallery": gallery, "fmr": fmr, "attributes": _named(attributes)}
    return _asked("/v1/verify", reading(Verification), pictures, form)


def detect(image: Picture, *, max_faces: int | None = None, attributes: Sequence[str] = ()) -> Call[DetectedFaces]:
    """The faces of a picture: boxes, landmarks and quality. Raises ProblemError, Unreachable, UnexpectedAnswer.

    Args:
        attributes: what else to tell of each face: `mask`, and what the service has networks for, as
            `ready().model.attributes` says.
    """
    pictures, form = [("image", content_of(image))], {"max_faces": max_faces, "attributes": _named(attributes)}
    return _asked("/v1/detect", reading(DetectedFaces), pictures, form)


def embeddings(image: Picture, *, max_faces: int | None = None, attributes: Sequence[str] = ()) -> Call[EmbeddedFaces]:
    """As `detect`, with the embedding of each face."""
    pictures, form = [("image", content_of(image))], {"max_faces": max_faces, "attributes": _named(attributes)}
    return _asked("/v1/embeddings", reading(EmbeddedFaces), pictures, form)


def identify_many(
    images: Iterable[Picture],
    *,
    gallery: str | None = None,
    top_k: int | None = None,
    fpir: float | None = None,
    threshold: float | None = None,
    max_faces: int | None = None,
    exact: bool = False,
    person_ids: Sequence[str] | None = None,
    attributes: Sequence[str] = (),
    batch: int = 32,
) -> Call[Page[IdentifyItem]] | None:
    """As `identify` for many pictures, which are read and sent `batch` at a time. Yields an item a picture, in order.

    A picture with a problem has it in its item; what concerns a whole batch is raised.

    Args:
        batch: at most as many as the service takes in one request, 64 unless it is configured otherwise.

    Raises:
        ProblemError, Unreachable, UnexpectedAnswer.
    """
    form = _identify_form(gallery, top_k, fpir, threshold, max_faces, exact, person_ids, attributes)
    contents = ((content, [content]) for content in map(content_of, images))

    def call(group: list[bytes], read: Reader[Page[IdentifyItem]]) -> Call[Page[IdentifyItem]]:
        return _asked("/v1/batch/identify", read, [("images", content) for content in group], form)

    return _next_batch(batched(contents, batch), 0, lambda content: parsed(_IdentifyItems, content).items, call)


def enrol_many(
    persons: Iterable[NewPerson], *, gallery: str | None = None, batch: int = 32
) -> Call[Page[EnrolItem]] | None:
    """As `enrol` for many persons, `batch` pictures at a time. Yields an item a person, in order.

    Persons are stored one by one: those with a problem leave the others alone. A batch is sent again after an answer
    was lost only if all in it have `on_existing` at `extend`, their default.

    Args:
        gallery: of all.
        batch: see `identify_many`.

    Raises:
        ProblemError, Unreachable, UnexpectedAnswer.
    """
    read_persons = ((_item(person, contents), contents) for person, contents in _read(persons))

    def call(group: list[dict[str, Any]], read: Reader[Page[EnrolItem]]) -> Call[Page[EnrolItem]]:
        return Call(
            method="POST",
            path="/v1/batch/enroll",
            read=read,
            repeatable=all(item["on_existing"] == "extend" for item in group),
            json=given({"gallery": gallery, "items": group}),
        )

    return _next_batch(batched(read_persons, batch), 0, lambda content: parsed(_EnrolItems, content).items, call)


def _next_batch(
    groups: Iterator[list[GroupedT]],
    first: int,
    items_of: Callable[[bytes], Sequence[ItemT]],
    call: Callable[[list[GroupedT], Reader[Page[ItemT]]], Call[Page[ItemT]]],
) -> Call[Page[ItemT]] | None:
    """The call for the next group, if there is one; items of its answer are numbered on from `first`."""
    group = next(groups, None)
    if group is None:
        return None

    def read(response: httpx.Response) -> Page[ItemT]:
        items = [item.model_copy(update={"index": first + item.index}) for item in items_of(response.content)]
        return Page(items, lambda: _next_batch(groups, first + len(group), items_of, call))

    return call(group, read)


def _read(persons: Iterable[NewPerson]) -> Iterator[tuple[NewPerson, list[bytes]]]:
    for person in persons:
        yield person, contents_of(person.images)


def _item(person: NewPerson, contents: Sequence[bytes]) -> dict[str, Any]:
    return given(
        {
            "images": [base64.b64encode(content).decode() for content in contents],
            "person_id": person.person_id,
            "name": person.name,
            "metadata": dict(person.metadata),
            "on_existing": person.on_existing,
            "on_conflict": person.on_conflict,
            "expires_at": _time(person.expires_at),
        }
    )


def _asked(path: str, read: Reader[T], pictures: list[tuple[str, bytes]], form: Mapping[str, Any]) -> Call[T]:
    """A call that changes nothing, and so may be repeated."""
    return Call(method="POST", path=path, read=read, repeatable=True, pictures=pictures, form=form)


def _identify_form(
    gallery: str | None,
    top_k: int | None,
    fpir: float | None,
    threshold: float | None,
    max_faces: int | None,
    exact: bool,
    person_ids: Sequence[str] | None,
    attributes: Sequence[str],
) -> dict[str, Any]:
    return {
        "gallery": gallery,
        "top_k": top_k,
        "fpir": fpir,
        "threshold": threshold,
        "max_faces": max_faces,
        "exact": exact or None,
        "person_ids": None if person_ids is None else _json(list(person_ids)),
        "attributes": _named(attributes),
    }


def _named(attributes: Sequence[str]) -> str | None:
    """As a form has them; a service that knows none is not asked for none."""
    return ",".join(attributes) or None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
