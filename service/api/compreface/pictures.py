"""From a request to the faces of its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from service.api.bodies import read_submission, request_body
from service.api.compreface.options import FaceOptions
from service.api.compreface.problems import MissingField, MissingPart
from service.api.dependencies import RunningService
from service.api.routes.recognition import observe
from service.api.security import Caller
from service.domain import NoFaceFound
from service.identification import PictureFaces
from service.telemetry import FACES


class _NoFields(BaseModel):
    """Beside the pictures nothing is read."""


def gallery_of(running: RunningService, caller: Caller) -> str:
    """The collection of an API key: the gallery that it is confined to, if that is one, or the default one."""
    confined = caller.key.galleries if caller.key is not None else None
    return confined[0] if confined is not None and len(confined) == 1 else running.gallery_name(None)


def pictures_body(*fields: str) -> dict[str, Any]:
    """OpenAPI `requestBody` with one picture in each field."""
    return request_body(_NoFields, dict.fromkeys(fields, "one"), fields)


async def read_pictures(request: Request, running: RunningService, *fields: str) -> Mapping[str, bytes]:
    """The picture of each field.

    Raises:
        MissingPart, MissingField: a picture is missing, from multipart or JSON.
        and what `read_submission` raises.
    """
    submission = await read_submission(request, running.settings, fields, max_pictures=len(fields))
    for field in fields:
        if not submission.pictures.get(field):
            if request.headers["content-type"].lower().startswith("application/json"):
                raise MissingField(f"Field {field} cannot be empty", field=field)
            raise MissingPart(f"Required part {field} is missing", field=field)
    return {field: submission.picture(field) for field in fields}


async def read_faces(
    running: RunningService, picture: bytes, options: FaceOptions, use: str, *, embed: bool
) -> PictureFaces:
    """The faces that the options ask for, with embeddings if asked. Raises NoFaceFound when there is none."""
    look = running.identification.embeddings if embed else running.identification.detect
    attributes = options.attributes(running.identification.attributes)
    found = await look(picture, max_faces=options.max_faces(running.settings), attributes=attributes)
    chosen = options.chosen(found.faces, lambda face: face)
    if not chosen:
        raise NoFaceFound("the picture shows no face")
    FACES.labels(use).inc(len(chosen))
    observe(found.timings_ms)
    return replace(found, faces=chosen)
