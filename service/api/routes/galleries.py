"""Galleries: begin, configure, list, erase."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from service.access import Scope
from service.api.bodies import json_body, read_json
from service.api.dependencies import GalleryName, Running
from service.api.preconditions import ExpectedRevision, etag
from service.api.problems import BODY_PROBLEMS, documented
from service.api.schemas.people import GalleriesOut, GalleryOut, ReceiptOut
from service.api.schemas.requests import ChangeGalleryFields, CreateGalleryFields
from service.api.security import Authenticated
from service.ports import GallerySummary

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])

GALLERY_PROBLEMS = ("gallery-not-found", "invalid-request")


@router.get("", response_model=GalleriesOut, summary="List galleries", responses=documented())
async def list_galleries(running: Running, caller: Authenticated) -> GalleriesOut:
    """All galleries that the API key is for, with their sizes."""
    caller.require(Scope.IDENTIFY)
    found = await running.gallery.galleries()
    seen = [GalleryOut.of(each, running.identity.space_id) for each in found if caller.sees(each.name)]
    return GalleriesOut(galleries=seen)


@router.post(
    "",
    status_code=201,
    response_model=GalleryOut,
    summary="Begin a gallery",
    responses=documented(*BODY_PROBLEMS, "gallery-exists", "storage-full"),
    openapi_extra=json_body(CreateGalleryFields),
)
async def create_gallery(request: Request, running: Running, caller: Authenticated, response: Response) -> GalleryOut:
    """An empty gallery with settings of its own. One without comes to be with its first enrolment."""
    fields = (await read_json(request, running.settings)).parse(CreateGalleryFields)
    caller.require(Scope.ADMIN, fields.name)
    summary = await running.custody.create_gallery(fields.name, fields.settings(), actor=caller.actor)
    response.headers["Location"] = f"/v1/galleries/{summary.name}"
    return _tagged(summary, response, running.identity.space_id)


@router.get("/{gallery}", response_model=GalleryOut, summary="Read a gallery", responses=documented(*GALLERY_PROBLEMS))
async def read_gallery(gallery: GalleryName, running: Running, caller: Authenticated, response: Response) -> GalleryOut:
    """One gallery's size, revision and settings."""
    caller.require(Scope.IDENTIFY, gallery)
    summary = await running.gallery.summary(gallery)
    return _tagged(summary, response, running.identity.space_id)


@router.patch(
    "/{gallery}",
    response_model=GalleryOut,
    summary="Configure a gallery",
    responses=documented(*BODY_PROBLEMS, *GALLERY_PROBLEMS, "revision-mismatch", "storage-full"),
    openapi_extra=json_body(ChangeGalleryFields),
)
async def configure_gallery(
    request: Request,
    gallery: GalleryName,
    expected: ExpectedRevision,
    running: Running,
    caller: Authenticated,
    response: Response,
) -> GalleryOut:
    """Change settings; what is left out stays."""
    fields = (await read_json(request, running.settings)).parse(ChangeGalleryFields)
    caller.require(Scope.ADMIN, gallery)
    given = {name: getattr(fields, name) for name in fields.model_fields_set}
    summary = await running.custody.configure_gallery(
        gallery, lambda known: replace(known, **given), expected_revision=expected, actor=caller.actor
    )
    return _tagged(summary, response, running.identity.space_id)


@router.delete(
    "/{gallery}",
    response_model=ReceiptOut,
    summary="Erase a gallery",
    responses=documented(*GALLERY_PROBLEMS, "revision-mismatch", "storage-full"),
)
async def drop_gallery(
    gallery: GalleryName, expected: ExpectedRevision, running: Running, caller: Authenticated
) -> ReceiptOut:
    """Erase everybody in a gallery, everywhere, and the gallery; the answer says what was removed."""
    caller.require(Scope.ADMIN, gallery)
    receipt = await running.custody.drop_gallery(gallery, expected_revision=expected, actor=caller.actor)
    return ReceiptOut.of(receipt, gallery)


def _tagged(summary: GallerySummary, response: Response, space_id: str) -> GalleryOut:
    response.headers["ETag"] = etag(summary.revision)
    return GalleryOut.of(summary, space_id)
