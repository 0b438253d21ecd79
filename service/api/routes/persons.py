"""The persons of a gallery and their faces: list, read, change, erase, and all that is known of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.access import Scope
from service.api.bodies import json_body, read_json
from service.api.cursors import seal, unseal
from service.api.dependencies import FaceId, GalleryName, PersonId, Running
from service.api.preconditions import ExpectedRevision, etag
from service.api.problems import BODY_PROBLEMS, CursorInvalid, documented
from service.api.routes.galleries import GALLERY_PROBLEMS
from service.api.schemas.people import (
    DossierOut,
    PersonOut,
    PersonsOut,
    ReceiptOut,
    StoredFaceOut,
    StoredFacesOut,
)
from service.api.schemas.requests import AddPersonFields, ChangePersonFields
from service.api.security import Authenticated
from service.domain import (
    PERSON_ID,
    FaceNotFound,
    InvalidRequest,
    Person,
    PersonChange,
    PersonFilter,
)
from service.identification.enrolment import fresh_id

router = APIRouter(prefix="/v1/galleries/{gallery}/persons", tags=["persons"])

_PERSON_PROBLEMS = (*GALLERY_PROBLEMS, "person-not-found")
_FACE_PROBLEMS = (*_PERSON_PROBLEMS, "face-not-found")
_CHANGE_PROBLEMS = ("revision-mismatch", "storage-full")

_METADATA_PREFIX = "metadata."
_MAX_CONDITIONS = 8


@router.get(
    "",
    response_model=PersonsOut,
    summary="List persons",
    responses=documented(*GALLERY_PROBLEMS, "cursor-invalid"),
    openapi_extra={
        "parameters": [
            {
                "name": "metadata",
                "in": "query",
                "required": False,
                "style": "form",
                "explode": True,
                "schema": {"type": "object", "additionalProperties": {"type": "string"}},
                "description": "`metadata.KEY=VALUE`: a top-level value that a person must have; text as it is, "
                "anything else as JSON spells it. May be given for several keys.",
            }
        ]
    },
)
async def list_persons(
    request: Request,
    gallery: GalleryName,
    running: Running,
    caller: Authenticated,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=400, description="From `next_cursor`.")] = None,
    name: Annotated[str | None, Query(max_length=200, description="A part of the name, in any case.")] = None,
) -> PersonsOut:
    """Persons by id, a page at a time. A filtered page may be short: go on until `next_cursor` is null."""
    caller.require(Scope.IDENTIFY, gallery)
    after = None
    if cursor is not None:
        after = unseal("p", cursor)
        if not PERSON_ID.fullmatch(after):
            raise CursorInvalid("the cursor was not handed out by this service for this list")
    wanted = PersonFilter(name, _conditions(request))
    if wanted == PersonFilter():
        # One more than asked tells whether there is a next page.
        persons = await running.gallery.persons(gallery, after=after, limit=limit + 1)
        page, next_after = persons[:limit], persons[limit - 1].person_id if len(persons) > limit else None
    else:
        found = await running.gallery.find_persons(gallery, wanted, after=after, limit=limit)
        page, next_after = list(found.persons), found.next_after
    return PersonsOut(
        persons=[PersonOut.of(person) for person in page],
        next_cursor=seal("p", next_after) if next_after is not None else None,
    )


@router.post(
    "",
    status_code=201,
    response_model=PersonOut,
    summary="Add a person without faces",
    responses=documented(*BODY_PROBLEMS, "person-exists", "storage-full"),
    openapi_extra=json_body(AddPersonFields),
)
async def add_person(
    request: Request, gallery: GalleryName, running: Running, caller: Authenticated, response: Response
) -> PersonOut:
    """Somebody whose faces come later, by `/enroll` with `on_existing` set to `extend`."""
    fields = (await read_json(request, running.settings)).parse(AddPersonFields)
    caller.require(Scope.ENROLL, gallery)
    person_id = fields.person_id if fields.person_id is not None else fresh_id("p", 0)
    change = PersonChange(fields.name, fields.metadata)
    person = await running.custody.add_person(gallery, person_id, change, actor=caller.actor)
    response.headers["Location"] = f"/v1/galleries/{gallery}/persons/{person.person_id}"
    return _tagged(person, response)


@router.get("/{person_id}", response_model=PersonOut, summary="Read a person", responses=documented(*_PERSON_PROBLEMS))
async def read_person(
    gallery: GalleryName, person_id: PersonId, running: Running, caller: Authenticated, response: Response
) -> PersonOut:
    """One person with the ids of their faces."""
    caller.require(Scope.IDENTIFY, gallery)
    return _tagged(await running.gallery.person(gallery, person_id), response)


@router.patch(
    "/{person_id}",
    response_model=PersonOut,
    summary="Change a person",
    responses=documented(*BODY_PROBLEMS, *_PERSON_PROBLEMS, *_CHANGE_PROBLEMS),
    openapi_extra=json_body(ChangePersonFields),
)
async def change_person(
    request: Request,
    gallery: GalleryName,
    person_id: PersonId,
    expected: ExpectedRevision,
    running: Running,
    caller: Authenticated,
    response: Response,
) -> PersonOut:
    """Change name or metadata; what is left out stays."""
    fields = (await read_json(request, running.settings)).parse(ChangePersonFields)
    caller.require(Scope.ENROLL, gallery)
    person = await running.custody.update_person(
        gallery, person_id, fields.change(), expected_revision=expected, actor=caller.actor
    )
    return _tagged(person, response)


@router.delete(
    "/{person_id}",
    response_model=ReceiptOut,
    summary="Erase a person",
    responses=documented(*_PERSON_PROBLEMS, *_CHANGE_PROBLEMS),
)
async def delete_person(
    gallery: GalleryName, person_id: PersonId, expected: ExpectedRevision, running: Running, caller: Authenticated
) -> ReceiptOut:
    """Erase a person everywhere; the answer says what was removed."""
    caller.require(Scope.ENROLL, gallery)
    receipt = await running.custody.forget_person(gallery, person_id, expected_revision=expected, actor=caller.actor)
    return ReceiptOut.of(receipt, gallery, person_id)


@router.get(
    "/{person_id}/export",
    response_model=DossierOut,
    summary="All that is stored of a person",
    responses=documented(*_PERSON_PROBLEMS),
)
async def export_person(
    gallery: GalleryName, person_id: PersonId, running: Running, caller: Authenticated
) -> DossierOut:
    """For somebody who asks what is known of them: person, faces with embeddings and kept crops, and the journal."""
    caller.require(Scope.ADMIN, gallery)
    dossier = await running.custody.dossier(gallery, person_id, actor=caller.actor)
    return DossierOut.of(dossier, running.identity.space_id)


@router.get(
    "/{person_id}/faces", response_model=StoredFacesOut, summary="List faces", responses=documented(*_PERSON_PROBLEMS)
)
async def list_faces(
    gallery: GalleryName, person_id: PersonId, running: Running, caller: Authenticated
) -> StoredFacesOut:
    """A person's faces, in the order of enrolment."""
    caller.require(Scope.IDENTIFY, gallery)
    faces = await running.gallery.faces(gallery, person_id)
    return StoredFacesOut(faces=[StoredFaceOut.of(face) for face in faces])


@router.get(
    "/{person_id}/faces/{face_id}",
    response_model=StoredFaceOut,
    summary="Read a face",
    responses=documented(*_FACE_PROBLEMS),
)
async def read_face(
    gallery: GalleryName, person_id: PersonId, face_id: FaceId, running: Running, caller: Authenticated
) -> StoredFaceOut:
    """One enrolled face."""
    caller.require(Scope.IDENTIFY, gallery)
    for face in await running.gallery.faces(gallery, person_id):
        if face.face_id == face_id:
            return StoredFaceOut.of(face)
    raise FaceNotFound("the person has no face of this id", gallery=gallery, person_id=person_id)


@router.get(
    "/{person_id}/faces/{face_id}/crop",
    response_class=Response,
    summary="Read a kept crop",
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **documented(*_FACE_PROBLEMS, "crop-not-kept"),
    },
)
async def read_crop(
    gallery: GalleryName, person_id: PersonId, face_id: FaceId, running: Running, caller: Authenticated
) -> Response:
    """The aligned crop of a face, in galleries that keep them."""
    caller.require(Scope.ENROLL, gallery)
    image = await running.gallery.crop(gallery, person_id, face_id)
    return Response(image, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.delete(
    "/{person_id}/faces/{face_id}",
    response_model=ReceiptOut,
    summary="Erase a face",
    responses=documented(*_FACE_PROBLEMS, *_CHANGE_PROBLEMS),
)
async def delete_face(
    gallery: GalleryName,
    person_id: PersonId,
    face_id: FaceId,
    expected: ExpectedRevision,
    running: Running,
    caller: Authenticated,
) -> ReceiptOut:
    """Erase one face everywhere. The person stays; `If-Match` is about the person."""
    caller.require(Scope.ENROLL, gallery)
    receipt = await running.custody.forget_face(
        gallery, person_id, face_id, expected_revision=expected, actor=caller.actor
    )
    return ReceiptOut.of(receipt, gallery, person_id, face_id)


def _conditions(request: Request) -> dict[str, str]:
    conditions = {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in request.query_params.multi_items()
        if name.startswith(_METADATA_PREFIX)
    }
    if len(conditions) > _MAX_CONDITIONS:
        raise InvalidRequest(f"at most {_MAX_CONDITIONS} metadata conditions are taken", field="metadata")
    return conditions


def _tagged(person: Person, response: Response) -> PersonOut:
    response.headers["ETag"] = etag(person.revision)
    return PersonOut.of(person)
