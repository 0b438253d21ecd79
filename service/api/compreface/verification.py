"""CompreFace's face verification service: two pictures."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.access import Scope
from service.api.compreface.options import Options
from service.api.compreface.pictures import pictures_body, read_faces, read_pictures
from service.api.compreface.problems import CompreFaceRoute, errors
from service.api.compreface.schemas import (
    CompreFaceFace,
    CompreFaceMatches,
    CompreFaceVerification,
    CompreFaceVerifiedFace,
    face_members,
    status_members,
)
from service.api.compreface.similarity import FALSE_MATCH_RATE, similarity_of
from service.api.dependencies import Running
from service.api.security import Authenticated
from service.domain import AnalysedFace, SeveralFacesFound

router = APIRouter(prefix="/api/v1/verification", route_class=CompreFaceRoute)


@router.post(
    "/verify",
    response_model=CompreFaceVerification,
    response_model_exclude_unset=True,
    summary="Compare two pictures",
    responses=errors(408, 413, 415),
    openapi_extra=pictures_body("source_image", "target_image"),
)
async def verify(request: Request, running: Running, caller: Authenticated, options: Options) -> CompreFaceVerification:
    """The one face of the source picture against each of the target picture; `limit` is for both."""
    caller.require(Scope.IDENTIFY)
    pictures = await read_pictures(request, running, "source_image", "target_image")
    source = await read_faces(running, pictures["source_image"], options, "verify", embed=True)
    if len(source.faces) > 1:
        raise SeveralFacesFound("the source picture shows several faces", faces=len(source.faces))
    target = await read_faces(running, pictures["target_image"], options, "verify", embed=True)
    (probe,) = source.faces
    threshold = running.identification.threshold_of(FALSE_MATCH_RATE, 1)
    matches = [
        CompreFaceVerifiedFace(
            **face_members(face, target, options), similarity=similarity_of(_cosine(probe, face), threshold)
        )
        for face in target.faces
    ]
    return CompreFaceVerification(
        result=[
            CompreFaceMatches(
                source_image_face=CompreFaceFace(**face_members(probe, source, options)),
                face_matches=matches,
                **status_members(running.identity, options),
            )
        ]
    )


def _cosine(one: AnalysedFace, other: AnalysedFace) -> float:
    assert one.embedding is not None
    assert other.embedding is not None
    return float(one.embedding @ other.embedding)
