"""The calls that take pictures: enrol, identify, verify, detect, embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from service.access import Scope
from service.api.bodies import Submission, read_submission, request_body
from service.api.dependencies import Running, RunningService
from service.api.idempotency import HEADER, PROBLEMS, Answer, Once, answered_once
from service.api.preconditions import etag
from service.api.problems import BODY_PROBLEMS, documented
from service.api.rendering import rendered
from service.api.schemas.answers import DetectOut, EmbeddingsOut, EnrolOut, IdentifyOut, VerifyOut
from service.api.schemas.people import PersonOut
from service.api.schemas.requests import DetectFields, EnrolFields, IdentifyFields, VerifyFields
from service.api.security import Authenticated, Caller
from service.domain import PersonNotFound
from service.identification import NewId
from service.telemetry import DECISIONS, FACES, STAGE_SECONDS

router = APIRouter(tags=["recognition"])

PICTURE_PROBLEMS = (
    *BODY_PROBLEMS,
    "image-empty", "image-format-unsupported", "image-damaged", "image-too-many-bytes", "image-too-many-pixels",
    "image-too-small", "image-animated", "base64-invalid",
)  # fmt: skip
FACE_PROBLEMS = (*PICTURE_PROBLEMS, "no-face", "embedding-invalid", "attribute-unavailable")
ENROL_PROBLEMS = (
    *FACE_PROBLEMS, "several-faces", "quality-too-low", "person-exists", "looks-like-another", "storage-full",
    "person-not-found",
)  # fmt: skip


@router.post(
    "/enroll",
    status_code=201,
    response_model=EnrolOut,
    summary="Enrol a person",
    responses={
        200: {"model": EnrolOut, "description": "All pictures had been enrolled before; nothing was stored."},
        **documented(*ENROL_PROBLEMS, *PROBLEMS),
    },
    openapi_extra={
        **request_body(EnrolFields, {"image": "one", "images": "many"}, []),
        "parameters": [HEADER],
    },
)
async def enroll(request: Request, running: Running, caller: Authenticated) -> Response:
    """Store the one face of each picture under one person. The answer is sent when the enrolment is on disk."""
    # Before the body is read; for which gallery the key is, only the body says.
    caller.require(Scope.ENROLL)
    submission = await read_submission(request, running.settings, ("image", "images"))

    async def work(new_id: NewId | None) -> Answer:
        return await enrolled(running, caller, submission, new_id)

    async def complete(body: dict[str, Any]) -> dict[str, Any]:
        return await with_names(running, body)

    return await answered_once(running, Once.of(request, caller.actor, submission), work, complete)


async def enrolled(
    running: RunningService, caller: Caller, submission: Submission, new_id: NewId | None = None
) -> Answer:
    """Enrol what a submission holds: a request, or one item of a batch."""
    fields = submission.parse(EnrolFields)
    gallery = running.gallery_name(fields.gallery)
    caller.require(Scope.ENROLL, gallery)
    enrolment = await running.enrolment.enrol(
        [*submission.pictures.get("image", []), *submission.pictures.get("images", [])],
        gallery=gallery,
        person_id=fields.person_id,
        name=fields.name,
        metadata=fields.metadata,
        extend=fields.on_existing == "extend",
        on_conflict=fields.on_conflict,
        expires_at=fields.expires_at,
        attributes=fields.attributes,
        actor=caller.actor,
        new_id=new_id,
    )
    FACES.labels("enrol").inc(len(enrolment.faces))
    observe(enrolment.timings_ms)
    person = enrolment.person
    body = EnrolOut.of(enrolment, running.identity).model_dump(mode="json")
    nameless = {
        **body,
        "person": {"face_ids": list(person.face_ids), "gallery": gallery, "person_id": person.person_id},
        "conflicts": [{**each, "name": None} for each in body["conflicts"]],
    }
    headers = {
        "Location": f"/v1/galleries/{gallery}/persons/{person.person_id}",
        "ETag": etag(person.revision),
    }
    return Answer(201 if enrolment.stored else 200, body, nameless, gallery, person.person_id, headers)


async def with_names(running: RunningService, nameless: dict[str, Any]) -> dict[str, Any]:
    """The answer to a repeated enrolment, with the names that those in it have now.

    Raises PersonNotFound, GalleryNotFound.
    """
    then = nameless["person"]
    person = await running.gallery.person(then["gallery"], then["person_id"])
    body = {**nameless, "person": PersonOut.of(person).model_dump(mode="json") | {"face_ids": then["face_ids"]}}
    conflicts = []
    for conflict in body["conflicts"]:
        try:
            name = (await running.gallery.person(then["gallery"], conflict["person_id"])).name
        except PersonNotFound:
            continue
        conflicts.append({**conflict, "name": name})
    return {**body, "conflicts": conflicts}


@router.post(
    "/identify",
    response_model=IdentifyOut,
    summary="Say who is in a picture",
    responses=documented(*FACE_PROBLEMS),
    openapi_extra=request_body(IdentifyFields, {"image": "one"}, ["image"]),
)
async def identify(request: Request, running: Running, caller: Authenticated) -> Response:
    """Every face with its candidates and an open-set decision. Nobody known is an answer, not an error."""
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(IdentifyFields)
    answer = await identified(running, caller, submission.picture("image"), fields)
    return rendered(answer)


async def identified(running: RunningService, caller: Caller, picture: bytes, fields: IdentifyFields) -> IdentifyOut:
    """Who is in a picture: of a request, or one of a batch."""
    gallery = running.gallery_name(fields.gallery)
    caller.require(Scope.IDENTIFY, gallery)
    found = await running.identification.identify(
        picture,
        gallery=gallery,
        top_k=fields.top_k,
        fpir=fields.fpir,
        threshold=fields.threshold,
        max_faces=running.max_faces(fields.max_faces),
        exact=fields.exact,
        among=fields.person_ids,
        attributes=fields.attributes,
    )
    FACES.labels("identify").inc(len(found.faces))
    for face in found.faces:
        DECISIONS.labels("identified" if face.decision.identified else "unknown").inc()
    observe(found.timings_ms)
    return IdentifyOut.of(found, running.identification, running.identity)


@router.post(
    "/v1/verify",
    response_model=VerifyOut,
    summary="Compare two pictures, or a picture and a person",
    responses=documented(*FACE_PROBLEMS, "several-faces", "quality-too-low", "gallery-not-found", "person-not-found"),
    openapi_extra=request_body(VerifyFields, {"image": "one", "reference": "one"}, ["image"]),
)
async def verify(request: Request, running: Running, caller: Authenticated) -> Response:
    """One to one: the second side is `reference`, another picture, or `person_id`, somebody enrolled."""
    submission = await read_submission(request, running.settings, ("image", "reference"))
    fields = submission.parse(VerifyFields)
    gallery = running.gallery_name(fields.gallery)
    caller.require(Scope.IDENTIFY, gallery if fields.person_id is not None else None)
    verification = await running.identification.verify(
        submission.picture("image"),
        submission.picture("reference") if "reference" in submission.pictures else None,
        gallery=gallery,
        person_id=fields.person_id,
        fmr=fields.fmr,
        attributes=fields.attributes,
    )
    observe(verification.timings_ms)
    return rendered(VerifyOut.of(verification, running.identity))


@router.post(
    "/v1/detect",
    response_model=DetectOut,
    summary="Find faces",
    responses=documented(*PICTURE_PROBLEMS, "attribute-unavailable"),
    openapi_extra=request_body(DetectFields, {"image": "one"}, ["image"]),
)
async def detect(request: Request, running: Running, caller: Authenticated) -> Response:
    """Boxes, landmarks and quality; a picture without faces gives an empty list."""
    caller.require(Scope.IDENTIFY)
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(DetectFields)
    found = await running.identification.detect(
        submission.picture("image"), max_faces=running.max_faces(fields.max_faces), attributes=fields.attributes
    )
    FACES.labels("detect").inc(len(found.faces))
    observe(found.timings_ms)
    return rendered(DetectOut.of(found))


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsOut,
    summary="Compute embeddings",
    responses=documented(*FACE_PROBLEMS),
    openapi_extra=request_body(DetectFields, {"image": "one"}, ["image"]),
)
async def embeddings(request: Request, running: Running, caller: Authenticated) -> Response:
    """The unit vector of every face, for comparison within one `space_id`."""
    caller.require(Scope.IDENTIFY)
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(DetectFields)
    found = await running.identification.embeddings(
        submission.picture("image"), max_faces=running.max_faces(fields.max_faces), attributes=fields.attributes
    )
    FACES.labels("embed").inc(len(found.faces))
    observe(found.timings_ms)
    return rendered(EmbeddingsOut.of(found, running.identity))


def observe(timings_ms: Mapping[str, float]) -> None:
    """Count the stages of an answer."""
    for stage, value in timings_ms.items():
        STAGE_SECONDS.labels(stage).observe(value / 1e3)
