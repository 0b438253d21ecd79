"""The calls that take pictures: enrol, identify, verify, detect, embed."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from service.api.bodies import read_submission, request_body
from service.api.dependencies import Running
from service.api.problems import documented
from service.api.schemas import (
    DetectFields,
    DetectOut,
    EmbeddingsOut,
    EnrolFields,
    EnrolOut,
    IdentifyFields,
    IdentifyOut,
    VerifyFields,
    VerifyOut,
)
from service.telemetry import DECISIONS, FACES, STAGE_SECONDS

router = APIRouter(tags=["recognition"])

_PICTURE_PROBLEMS = (
    "body-invalid", "body-too-large", "body-timeout", "media-type-unsupported", "invalid-request",
    "image-empty", "image-format-unsupported", "image-damaged", "image-too-many-bytes", "image-too-many-pixels",
    "image-too-small", "image-animated", "base64-invalid", "overloaded", "not-ready", "internal-error",
)  # fmt: skip
_FACE_PROBLEMS = (*_PICTURE_PROBLEMS, "no-face", "embedding-invalid")


@router.post(
    "/enroll",
    status_code=201,
    response_model=EnrolOut,
    summary="Enrol a person",
    responses=documented(*_FACE_PROBLEMS, "several-faces", "quality-too-low", "person-exists", "storage-full"),
    openapi_extra=request_body(EnrolFields, {"image": "one", "images": "many"}, []),
)
async def enroll(request: Request, response: Response, running: Running) -> EnrolOut:
    """Store the one face of each picture under one person. The answer is sent when the enrolment is on disk."""
    submission = await read_submission(request, running.settings, ("image", "images"))
    fields = submission.parse(EnrolFields)
    pictures = [*submission.pictures.get("image", []), *submission.pictures.get("images", [])]
    gallery = running.gallery_name(fields.gallery)
    enrolment = await running.service.enrol(
        pictures,
        gallery=gallery,
        person_id=fields.person_id,
        name=fields.name,
        metadata=fields.metadata,
        extend=fields.on_existing == "extend",
    )
    FACES.labels("enrol").inc(len(enrolment.faces))
    _observe(enrolment.timings_ms)
    response.headers["Location"] = f"/v1/galleries/{gallery}/persons/{enrolment.person.person_id}"
    return EnrolOut.of(enrolment, running.identity)


@router.post(
    "/identify",
    response_model=IdentifyOut,
    summary="Say who is in a picture",
    responses=documented(*_FACE_PROBLEMS),
    openapi_extra=request_body(IdentifyFields, {"image": "one"}, ["image"]),
)
async def identify(request: Request, running: Running) -> IdentifyOut:
    """Every face with its candidates and an open-set decision. Nobody known is an answer, not an error."""
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(IdentifyFields)
    found = await running.service.identify(
        submission.picture("image"),
        gallery=running.gallery_name(fields.gallery),
        top_k=fields.top_k,
        fpir=fields.fpir,
        threshold=fields.threshold,
        max_faces=fields.max_faces,
        exact=fields.exact,
    )
    FACES.labels("identify").inc(len(found.faces))
    for face in found.faces:
        DECISIONS.labels("identified" if face.decision.identified else "unknown").inc()
    _observe(found.timings_ms)
    return IdentifyOut.of(found, running.service, running.identity)


@router.post(
    "/v1/verify",
    response_model=VerifyOut,
    summary="Compare two pictures, or a picture and a person",
    responses=documented(*_FACE_PROBLEMS, "several-faces", "quality-too-low", "gallery-not-found", "person-not-found"),
    openapi_extra=request_body(VerifyFields, {"image": "one", "reference": "one"}, ["image"]),
)
async def verify(request: Request, running: Running) -> VerifyOut:
    """One to one: the second side is `reference`, another picture, or `person_id`, somebody enrolled."""
    submission = await read_submission(request, running.settings, ("image", "reference"))
    fields = submission.parse(VerifyFields)
    verification = await running.service.verify(
        submission.picture("image"),
        submission.picture("reference") if "reference" in submission.pictures else None,
        gallery=running.gallery_name(fields.gallery),
        person_id=fields.person_id,
        fmr=fields.fmr,
    )
    return VerifyOut.of(verification, running.identity)


@router.post(
    "/v1/detect",
    response_model=DetectOut,
    summary="Find faces",
    responses=documented(*_PICTURE_PROBLEMS),
    openapi_extra=request_body(DetectFields, {"image": "one"}, ["image"]),
)
async def detect(request: Request, running: Running) -> DetectOut:
    """Boxes, landmarks and quality; a picture without faces gives an empty list."""
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(DetectFields)
    found = await running.service.detect(submission.picture("image"), max_faces=fields.max_faces)
    FACES.labels("detect").inc(len(found.faces))
    _observe(found.timings_ms)
    return DetectOut.of(found)


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsOut,
    summary="Compute embeddings",
    responses=documented(*_FACE_PROBLEMS),
    openapi_extra=request_body(DetectFields, {"image": "one"}, ["image"]),
)
async def embeddings(request: Request, running: Running) -> EmbeddingsOut:
    """The unit vector of every face, for comparison within one `space_id`."""
    submission = await read_submission(request, running.settings, ("image",))
    fields = submission.parse(DetectFields)
    found = await running.service.embeddings(submission.picture("image"), max_faces=fields.max_faces)
    FACES.labels("embed").inc(len(found.faces))
    _observe(found.timings_ms)
    return EmbeddingsOut.of(found, running.identity)


def _observe(timings_ms: Mapping[str, float]) -> None:
    for stage, value in timings_ms.items():
        STAGE_SECONDS.labels(stage).observe(value / 1e3)
