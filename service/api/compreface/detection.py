"""CompreFace's face detection service."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.access import Scope
from service.api.compreface.options import Options
from service.api.compreface.pictures import pictures_body, read_faces, read_pictures
from service.api.compreface.problems import CompreFaceRoute, errors
from service.api.compreface.schemas import CompreFaceDetection, CompreFaceFace, face_members, status_members
from service.api.dependencies import Running
from service.api.security import Authenticated

router = APIRouter(prefix="/api/v1/detection", route_class=CompreFaceRoute)


@router.post(
    "/detect",
    response_model=CompreFaceDetection,
    response_model_exclude_unset=True,
    summary="Find faces",
    responses=errors(408, 413, 415),
    openapi_extra=pictures_body("file"),
)
async def detect(request: Request, running: Running, caller: Authenticated, options: Options) -> CompreFaceDetection:
    """Boxes, and what plugins say; a picture without faces is refused with code 28."""
    caller.require(Scope.IDENTIFY)
    pictures = await read_pictures(request, running, "file")
    embed = "calculator" in options.plugins
    found = await read_faces(running, pictures["file"], options, "detect", embed=embed)
    return CompreFaceDetection(
        result=[CompreFaceFace(**face_members(face, found, options)) for face in found.faces],
        **status_members(running.identity, options),
    )
