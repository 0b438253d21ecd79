"""Galleries and the persons in them: list, read, delete."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import Running
from service.api.problems import CursorInvalid, documented
from service.api.schemas import ErasureOut, GalleriesOut, GalleryOut, PersonOut, PersonsOut
from service.domain import PERSON_ID, check_gallery_name, check_person_id

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])

_GALLERY_PROBLEMS = ("gallery-not-found", "invalid-request", "overloaded", "not-ready", "internal-error")
_PERSON_PROBLEMS = (*_GALLERY_PROBLEMS, "person-not-found")


@router.get("", response_model=GalleriesOut, responses=documented("not-ready", "overloaded", "internal-error"))
async def list_galleries(running: Running) -> GalleriesOut:
    """All galleries with their sizes."""
    return GalleriesOut(galleries=[GalleryOut.of(summary) for summary in await running.gallery.galleries()])


@router.get("/{gallery}", response_model=GalleryOut, responses=documented(*_GALLERY_PROBLEMS))
async def read_gallery(gallery: str, running: Running) -> GalleryOut:
    """One gallery's size and revision."""
    return GalleryOut.of(await running.gallery.summary(check_gallery_name(gallery)))


@router.get("/{gallery}/persons", response_model=PersonsOut, responses=documented(*_GALLERY_PROBLEMS, "cursor-invalid"))
async def list_persons(
    gallery: str,
    running: Running,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> PersonsOut:
    """Persons by id, a page at a time."""
    after = _open_cursor(cursor) if cursor is not None else None
    # One more than asked tells whether there is a next page.
    persons = await running.gallery.persons(check_gallery_name(gallery), after=after, limit=limit + 1)
    page = persons[:limit]
    more = len(persons) > limit
    return PersonsOut(
        persons=[PersonOut.of(person) for person in page],
        next_cursor=_seal_cursor(page[-1].person_id) if more else None,
    )


@router.get("/{gallery}/persons/{person_id}", response_model=PersonOut, responses=documented(*_PERSON_PROBLEMS))
async def read_person(gallery: str, person_id: str, running: Running) -> PersonOut:
    """One person with the ids of their faces."""
    return PersonOut.of(await running.gallery.person(check_gallery_name(gallery), check_person_id(person_id)))


@router.delete(
    "/{gallery}/persons/{person_id}",
    response_model=ErasureOut,
    responses=documented(*_PERSON_PROBLEMS, "storage-full"),
)
async def delete_person(gallery: str, person_id: str, running: Running) -> ErasureOut:
    """Erase a person everywhere; the answer says what was removed."""
    removal, cache_entries = await running.service.forget(check_gallery_name(gallery), check_person_id(person_id))
    return ErasureOut(
        gallery=gallery,
        person_id=person_id,
        persons=removal.persons,
        faces=removal.faces,
        index_entries=removal.index_entries,
        cache_entries=cache_entries,
        revision=removal.revision,
    )


def _seal_cursor(person_id: str) -> str:
    return base64.urlsafe_b64encode(f"p1:{person_id}".encode()).decode().rstrip("=")


def _open_cursor(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise CursorInvalid("the cursor cannot be read") from None
    version, _, person_id = text.partition(":")
    if version != "p1" or not PERSON_ID.fullmatch(person_id):
        raise CursorInvalid("the cursor was not handed out by this service")
    return person_id
