"""Erasing many at once, as some calls of CompreFace's do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from service.api.dependencies import RunningService
from service.domain import GalleryNotFound, PersonNotFound

KeyT = TypeVar("KeyT")
ResultT = TypeVar("ResultT")

# Erased at the same time: they share commits.
_AT_ONCE = 32


async def forget_everybody(running: RunningService, gallery: str, *, actor: str) -> tuple[int, int]:
    """Erase all persons of a gallery, and say how many they and their faces were.

    A failure leaves those who are still there; the same call again goes on with them.
    """
    persons = faces = 0
    after = None

    async def forget(person_id: str) -> tuple[int, int]:
        try:
            removal = (await running.custody.forget_person(gallery, person_id, actor=actor)).removal
        except PersonNotFound:
            return 0, 0
        return removal.persons, removal.faces

    while True:
        try:
            page = await running.gallery.persons(gallery, after=after, limit=_AT_ONCE)
        except GalleryNotFound:
            page = []
        if not page:
            return persons, faces
        # Forward only: who is enrolled meanwhile cannot keep this going.
        after = page[-1].person_id
        for gone_persons, gone_faces in await some_at_once(forget, [person.person_id for person in page]):
            persons, faces = persons + gone_persons, faces + gone_faces


async def some_at_once(work: Callable[[KeyT], Awaitable[ResultT]], keys: Sequence[KeyT]) -> list[ResultT]:
    """The results of some work for each key, in their order; a bounded number of them at a time."""
    results: list[ResultT] = []
    for start in range(0, len(keys), _AT_ONCE):
        results += await asyncio.gather(*(work(key) for key in keys[start : start + _AT_ONCE]))
    return results
