"""CompreFace's examples of subjects: enrolled faces, by image id."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service.access import Scope
from service.api.bodies import read_json_list
from service.api.compreface.ids import checked_subject, image_id_of, person_id_of
from service.api.compreface.listing import MAX_PAGE, find_image, page_of_images, subject_of_person
from service.api.compreface.options import DetProbThreshold, Options
from service.api.compreface.pictures import gallery_of, pictures_body, read_faces, read_pictures
from service.api.compreface.problems import CompreFaceRoute, errors
from service.api.compreface.removal import forget_everybody, some_at_once
from service.api.compreface.schemas import (
    CompreFaceDeletion,
    CompreFaceExample,
    CompreFaceExamples,
    CompreFaceImageVerification,
    CompreFaceVerifiedFace,
    face_members,
    status_members,
)
from service.api.compreface.similarity import FALSE_MATCH_RATE, similarity_of
from service.api.dependencies import Running, RunningService
from service.api.routes.recognition import observe
from service.api.security import Authenticated
from service.domain import (
    AnalysedFace,
    CropNotKept,
    FaceNotFound,
    GalleryNotFound,
    InvalidRequest,
    NoFaceFound,
    PersonNotFound,
)
from service.telemetry import FACES

router = APIRouter(prefix="/api/v1/recognition/faces", route_class=CompreFaceRoute)

ImageId = Annotated[str, Path(min_length=1, max_length=128, description="Id of an enrolled face, a UUID.")]


@router.post(
    "",
    status_code=201,
    response_model=CompreFaceExample,
    summary="Enrol a face",
    responses=errors(408, 413, 415, 507),
    openapi_extra=pictures_body("file"),
)
async def add_example(
    request: Request,
    running: Running,
    caller: Authenticated,
    subject: Annotated[str, Query(description="Whose face it is; made where there is none.")],
    det_prob_threshold: DetProbThreshold = None,
) -> CompreFaceExample:
    """Store the one face of a picture. A picture that the subject has already is answered with its image id."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    person_id = person_id_of(checked_subject(subject))
    picture = (await read_pictures(request, running, "file"))["file"]
    if det_prob_threshold is not None:
        seen = await running.identification.detect(picture, max_faces=2)
        if all(face.detection.score < det_prob_threshold for face in seen.faces):
            raise NoFaceFound("the picture shows no face")
    enrolment = await running.enrolment.enrol(
        [picture],
        gallery=gallery,
        person_id=person_id,
        name=await _name_for(running, gallery, person_id, subject),
        extend=True,
        actor=caller.actor,
    )
    FACES.labels("enrol").inc()
    observe(enrolment.timings_ms)
    return CompreFaceExample(image_id=image_id_of(enrolment.faces[0].face_id), subject=subject)


@router.get("", response_model=CompreFaceExamples, summary="List enrolled faces", responses=errors())
async def list_examples(
    running: Running,
    caller: Authenticated,
    page: Annotated[int, Query(ge=0)] = 0,
    size: Annotated[int, Query(ge=1, description=f"Faces of a page; over {MAX_PAGE} means {MAX_PAGE}.")] = 20,
    subject: Annotated[str | None, Query(description="Only the faces of this subject.")] = None,
) -> CompreFaceExamples:
    """By person id, then in the order of enrolment."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.IDENTIFY, gallery)
    named = checked_subject(subject) if subject else None
    return await page_of_images(running, gallery, named, page=page, size=size)


@router.delete("", response_model=CompreFaceDeletion, summary="Erase faces of a subject", responses=errors(507))
async def delete_examples(
    running: Running,
    caller: Authenticated,
    subject: Annotated[str | None, Query(description="Without it, all faces of all subjects go.")] = None,
) -> CompreFaceDeletion:
    """Erase all faces of a subject, and the subject with them; the answer says how many faces went."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    if subject is None:
        _, faces = await forget_everybody(running, gallery, actor=caller.actor)
        return CompreFaceDeletion(deleted=faces)
    person_id = person_id_of(checked_subject(subject))
    try:
        receipt = await running.custody.forget_person(gallery, person_id, actor=caller.actor)
    except (GalleryNotFound, PersonNotFound):
        return CompreFaceDeletion(deleted=0)
    return CompreFaceDeletion(deleted=receipt.removal.faces)


@router.post(
    "/delete",
    response_model=list[CompreFaceExample],
    summary="Erase several faces",
    responses=errors(408, 413, 415, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "array", "items": {"type": "string"}}}},
        }
    },
)
async def delete_several(request: Request, running: Running, caller: Authenticated) -> list[CompreFaceExample]:
    """Erase faces by image id; those that are not there are passed over. The answer has those that went."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    image_ids = await read_json_list(request, running.settings)
    if not all(isinstance(image_id, str) for image_id in image_ids):
        raise InvalidRequest("the list holds image ids, as text")

    async def forget(image_id: str) -> CompreFaceExample | None:
        try:
            return await _forget(running, gallery, image_id, caller.actor)
        except (FaceNotFound, PersonNotFound, GalleryNotFound):
            return None

    gone = await some_at_once(forget, list(dict.fromkeys(image_ids)))
    return [example for example in gone if example is not None]


@router.delete("/{image_id}", response_model=CompreFaceExample, summary="Erase a face", responses=errors(404, 507))
async def delete_example(image_id: ImageId, running: Running, caller: Authenticated) -> CompreFaceExample:
    """Erase one face everywhere. The subject stays."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    try:
        return await _forget(running, gallery, image_id, caller.actor)
    except (PersonNotFound, GalleryNotFound):
        raise FaceNotFound(f"Image {image_id} not found") from None


@router.get(
    "/{image_id}/img",
    response_class=Response,
    summary="Read a kept crop",
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **errors(404),
    },
)
async def read_image(image_id: ImageId, running: Running, caller: Authenticated) -> Response:
    """The aligned crop of a face, in galleries that keep them; the picture that it came from is never kept."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.ENROLL, gallery)
    person_id, face_id = await find_image(running, gallery, image_id)
    try:
        image = await running.gallery.crop(gallery, person_id, face_id)
    except CropNotKept:
        raise CropNotKept(f"Image {image_id} is not kept: only galleries with keep_crops keep any") from None
    return Response(image, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.post(
    "/{image_id}/verify",
    response_model=CompreFaceImageVerification,
    response_model_exclude_unset=True,
    summary="Compare a picture with an enrolled face",
    responses=errors(404, 408, 413, 415),
    openapi_extra=pictures_body("file"),
)
async def verify_example(
    request: Request, image_id: ImageId, running: Running, caller: Authenticated, options: Options
) -> CompreFaceImageVerification:
    """Each face of a picture against one enrolled face."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.IDENTIFY, gallery)
    pictures = await read_pictures(request, running, "file")
    person_id, face_id = await find_image(running, gallery, image_id)
    found = await read_faces(running, pictures["file"], options, "verify", embed=True)
    subject = await subject_of_person(running, gallery, person_id)
    threshold = running.identification.threshold_of(FALSE_MATCH_RATE, 1)
    cosines = [await _cosine(running, gallery, (person_id, face_id), face) for face in found.faces]
    return CompreFaceImageVerification(
        result=[
            CompreFaceVerifiedFace(
                **face_members(face, found, options), similarity=similarity_of(cosine, threshold), subject=subject
            )
            for face, cosine in zip(found.faces, cosines, strict=True)
        ],
        **status_members(running.identity, options),
    )


async def _name_for(running: RunningService, gallery: str, person_id: str, subject: str) -> str | None:
    """The name to give a person: the subject, unless they have another already."""
    try:
        person = await running.gallery.person(gallery, person_id)
    except (GalleryNotFound, PersonNotFound):
        return subject
    return subject if person.name in (None, subject) else None


async def _forget(running: RunningService, gallery: str, image_id: str, actor: str) -> CompreFaceExample:
    person_id, face_id = await find_image(running, gallery, image_id)
    subject = await subject_of_person(running, gallery, person_id)
    await running.custody.forget_face(gallery, person_id, face_id, actor=actor)
    return CompreFaceExample(image_id=image_id, subject=subject)


async def _cosine(running: RunningService, gallery: str, enrolled: tuple[str, str], face: AnalysedFace) -> float:
    person_id, face_id = enrolled
    assert face.embedding is not None
    for match in await running.gallery.similarities_to(gallery, person_id, face.embedding):
        if match.face_id == face_id:
            return match.similarity
    raise FaceNotFound(f"Image {image_id_of(face_id)} not found")
