"""CompreFace's face recognition service: whose faces a picture shows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.access import Scope
from service.api.compreface.ids import subject_of
from service.api.compreface.options import Options
from service.api.compreface.pictures import gallery_of, pictures_body, read_pictures
from service.api.compreface.problems import CompreFaceRoute, errors
from service.api.compreface.schemas import (
    CompreFaceRecognisedFace,
    CompreFaceRecognition,
    CompreFaceSubjectMatch,
    face_members,
    status_members,
)
from service.api.compreface.similarity import similarity_of
from service.api.dependencies import Running
from service.api.routes.recognition import observe
from service.api.security import Authenticated
from service.domain import NoFaceFound
from service.identification.probes import MAX_TOP_K
from service.telemetry import DECISIONS, FACES

router = APIRouter(prefix="/api/v1/recognition", route_class=CompreFaceRoute)


@router.post(
    "/recognize",
    response_model=CompreFaceRecognition,
    response_model_exclude_unset=True,
    summary="Say who is in a picture",
    responses=errors(408, 413, 415),
    openapi_extra=pictures_body("file"),
)
async def recognize(
    request: Request,
    running: Running,
    caller: Authenticated,
    options: Options,
    prediction_count: Annotated[
        int, Query(ge=1, description=f"Subjects listed for each face; over {MAX_TOP_K} means {MAX_TOP_K}.")
    ] = 1,
    *,
    detect_faces: Annotated[
        bool, Query(description="Without effect: the detector always runs, since a face is aligned by its landmarks.")
    ] = True,
) -> CompreFaceRecognition:
    """Every face with the subjects who resemble it most; similarity 0.5 is where `/identify` would decide."""
    gallery = gallery_of(running, caller)
    caller.require(Scope.IDENTIFY, gallery)
    pictures = await read_pictures(request, running, "file")
    found = await running.identification.identify(
        pictures["file"],
        gallery=gallery,
        top_k=min(prediction_count, MAX_TOP_K),
        max_faces=options.max_faces(running.settings),
        attributes=options.attributes(running.identification.attributes),
    )
    identified = options.chosen(found.faces, lambda each: each.face)
    if not identified:
        raise NoFaceFound("the picture shows no face")
    FACES.labels("identify").inc(len(identified))
    for each in identified:
        DECISIONS.labels("identified" if each.decision.identified else "unknown").inc()
    observe(found.timings_ms)
    return CompreFaceRecognition(
        result=[
            CompreFaceRecognisedFace(
                **face_members(each.face, found, options),
                subjects=[
                    CompreFaceSubjectMatch(
                        subject=subject_of(match.person_id, match.name),
                        similarity=similarity_of(match.similarity, found.threshold),
                    )
                    for match in each.matches
                ],
            )
            for each in identified
        ],
        **status_members(running.identity, options),
    )
