"""CompreFace's subjects: whoever is enrolled, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.convertors import PathConvertor, register_url_convertor

from service.access import Scope
from service.api.bodies import json_body, read_json
from service.api.compreface.ids import checked_subject, person_id_of, subject_of
from service.api.compreface.pictures import gallery_of
from service.api.compreface.problems import CompreFaceRoute, errors
from service.api.compreface.removal import forget_everybody
from service.api.compreface.renaming import rename_subject
from service.api.compreface.schemas import CompreFaceDeletion, CompreFaceSubject, CompreFaceSubjects, CompreFaceUpdate
from service.api.dependencies import Running, RunningService
from service.api.security import Authenticated
from service.domain import GalleryNotFound, Person, PersonChange, PersonNotFound


class _SubjectConvertor(PathConvertor):
    """The rest of a path. A subject may hold slashes and line breaks; Starlette's own convertor ends at the latter."""

    regex = r"[\s\S]*"


register_url_convertor("subject", _SubjectConvertor())

router = APIRouter(prefix="/api/v1/recognition/subjects", route_class=CompreFaceRoute)

_PERSONS_AT_ONCE = 500


@router.post(
    "",
    status_code=201,
    response_model=CompreFaceSubject,
    summary="Add a subject",
    responses=errors(408, 413, 415, 507),
    openapi_extra=json_body(CompreFaceSubject),
)
async def add_subject(request: Request, running: Running, caller: Authenticated) -> CompreFaceSubject:
    """A subject without faces."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    subject = await _named(request, running)
    await running.custody.add_person(gallery, person_id_of(subject), PersonChange(name=subject), actor=caller.actor)
    return CompreFaceSubject(subject=subject)


@router.get("", response_model=CompreFaceSubjects, summary="List subjects", responses=errors())
async def list_subjects(running: Running, caller: Authenticated) -> StreamingResponse:
    """All of them, in order of person id."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.IDENTIFY, gallery)
    try:
        first = await running.gallery.persons(gallery, after=None, limit=_PERSONS_AT_ONCE)
    except GalleryNotFound:
        first = []
    return StreamingResponse(_listed(running, gallery, first), media_type="application/json")


# CompreFace's documentation has the slash.
router.add_api_route("/", list_subjects, methods=["GET"], include_in_schema=False)


@router.put(
    "/{subject:subject}",
    response_model=CompreFaceUpdate,
    summary="Rename a subject",
    responses=errors(404, 408, 413, 415, 507),
    openapi_extra=json_body(CompreFaceSubject),
)
async def rename(request: Request, subject: str, running: Running, caller: Authenticated) -> CompreFaceUpdate:
    """Give a subject another name; where that is somebody's, they get all the faces."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    new = await _named(request, running)
    updated = await rename_subject(running, gallery, checked_subject(subject), new, actor=caller.actor)
    return CompreFaceUpdate(updated=updated)


@router.delete(
    "/{subject:subject}", response_model=CompreFaceSubject, summary="Erase a subject", responses=errors(404, 507)
)
async def delete_subject(subject: str, running: Running, caller: Authenticated) -> CompreFaceSubject:
    """Erase a subject with all of its faces, everywhere."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    try:
        await running.custody.forget_person(gallery, person_id_of(checked_subject(subject)), actor=caller.actor)
    except (GalleryNotFound, PersonNotFound):
        raise PersonNotFound(f"Subject {subject} not found") from None
    return CompreFaceSubject(subject=subject)


@router.delete("", response_model=CompreFaceDeletion, summary="Erase all subjects", responses=errors(507))
async def delete_all_subjects(running: Running, caller: Authenticated) -> CompreFaceDeletion:
    """Erase everybody; the gallery stays, with its settings. The answer says how many subjects went."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    persons, _ = await forget_everybody(running, gallery, actor=caller.actor)
    return CompreFaceDeletion(deleted=persons)


async def _named(request: Request, running: RunningService) -> str:
    return checked_subject((await read_json(request, running.settings)).parse(CompreFaceSubject).subject)


async def _listed(running: RunningService, gallery: str, page: Sequence[Person]) -> AsyncIterator[bytes]:
    """The answer piece by piece: a million names need not be in memory at once."""
    yield b'{"subjects":['
    separator = b""
    while page:
        yield separator + orjson.dumps([subject_of(person.person_id, person.name) for person in page])[1:-1]
        separator = b","
        after = page[-1].person_id
        page = await running.gallery.persons(gallery, after=after, limit=_PERSONS_AT_ONCE)
    yield b"]}"
