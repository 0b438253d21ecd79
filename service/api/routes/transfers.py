"""Whole galleries over HTTP, a person a line (NDJSON): out as a stream, and in with an outcome a line."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from python_multipart.multipart import parse_options_header

from service.access import Scope
from service.api.admission import Slot
from service.api.dependencies import GalleryName, Running, slot_of
from service.api.problems import MediaTypeUnsupported, documented, problem_body
from service.api.routes.galleries import GALLERY_PROBLEMS
from service.api.security import Authenticated
from service.domain import PERSON_ID, DomainError, InvalidRequest, PersonRecord
from service.transfer.importing import Importer, ImportTotals
from service.transfer.lines import Parsed, decoded, encoded
from service.transfer.sources import MAX_LINE_BYTES, Entry

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["galleries"])

_NDJSON = "application/x-ndjson"
_PERSONS_AT_ONCE = 500
_MAX_BATCH_BYTES = 16_000_000
_SPOOLED_BYTES = 4_000_000
_PIECE_BYTES = 65_536


@router.get(
    "/export",
    response_class=StreamingResponse,
    summary="Export a gallery",
    responses={
        200: {"content": {_NDJSON: {"schema": {"type": "string"}}}, "description": "A person a line."},
        **documented(*GALLERY_PROBLEMS),
    },
)
async def export_gallery(
    gallery: GalleryName,
    running: Running,
    caller: Authenticated,
    after: Annotated[str | None, Query(pattern=PERSON_ID.pattern, description="Go on behind this person id.")] = None,
) -> StreamingResponse:
    """Persons by id with their embeddings, and crops where they are kept: what `import` reads back.

    A stream that breaks off is carried on with `after` set to the last person received.
    """
    caller.require(Scope.ADMIN, gallery)
    total = await running.gallery.summary(gallery)
    await running.custody.noted(gallery, "gallery.export", actor=caller.actor, counts={"persons": total.persons})

    async def lines() -> AsyncIterator[bytes]:
        behind = after
        while page := await running.gallery.export_persons(gallery, after=behind, limit=_PERSONS_AT_ONCE):
            behind = page[-1].person_id
            yield await asyncio.to_thread(_encoded, page, running.identity.space_id)

    return StreamingResponse(lines(), media_type=_NDJSON)


@router.post(
    "/import",
    response_class=StreamingResponse,
    summary="Import persons",
    responses={
        200: {
            "content": {_NDJSON: {"schema": {"type": "string"}}},
            "description": "An outcome a line, and a last one with the totals under `summary`; its `problem` is null "
            "unless the rest was not stored.",
        },
        **documented("invalid-request", "media-type-unsupported"),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {_NDJSON: {"schema": {"type": "string", "description": "A person a line, as exported."}}},
        }
    },
)
async def import_gallery(
    request: Request, gallery: GalleryName, running: Running, caller: Authenticated
) -> StreamingResponse:
    """Store persons who come as embeddings or pictures, while the body still arrives.

    A line that cannot be stored is told of and the others go on. Nobody is stored twice, so an import that broke off
    is carried on by sending it again. The answer comes when all is stored.
    """
    caller.require(Scope.ADMIN, gallery)
    media_type = parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1").lower()
    if media_type not in (_NDJSON, "application/ndjson", "application/jsonl"):
        raise MediaTypeUnsupported(f"send {_NDJSON}", accepted=[_NDJSON])
    importer = Importer(running.gallery, gallery, running.enrolment, pictures_at_once=running.settings.vision_workers)
    totals, problem = ImportTotals(), None
    # Told when all has arrived: a client that sends all before it reads would wait for us, and we for it.
    told = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115 - closed by the stream
    try:
        async for lines in _batches(request, slot_of(request), running.settings.body_timeout_s):
            entries = await asyncio.to_thread(_parsed, lines, running.identity.space_id)
            stored = await importer.store(entries, totals)
            await asyncio.to_thread(told.writelines, map(_line, stored))
    except DomainError as error:
        if not totals.persons:
            told.close()
            raise
        problem = problem_body(request.state.request_id, error.code, error.message, error.details)
    except BaseException:
        told.close()
        raise
    counts = {"persons": totals.persons, "failed": totals.failed, "added": totals.added, "present": totals.present}
    await running.custody.noted(gallery, "gallery.import", actor=caller.actor, counts=counts)
    told.write(_line({"summary": {**counts, "pictures_skipped": totals.pictures_skipped}, "problem": problem}))
    return StreamingResponse(_content(told), media_type=_NDJSON)


async def _batches(request: Request, slot: Slot, timeout_s: float) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Lines of a body that are not empty, with their numbers, some hundred at a time."""
    number, batch, size, begun = 0, list[tuple[int, bytes]](), 0, bytearray()
    stream, ended = aiter(request.stream()), False
    while not ended:
        # A pause is bounded, not the whole: an import may take hours.
        async with slot.arriving(timeout_s):
            chunk = await anext(stream, None)
        ended = chunk is None
        first, *others = (chunk or b"").split(b"\n")
        begun += first
        if len(begun) > MAX_LINE_BYTES:
            raise InvalidRequest(f"a line may have at most {MAX_LINE_BYTES} bytes", limit_bytes=MAX_LINE_BYTES)
        whole = list[bytes]()
        if others:
            whole += [bytes(begun), *others[:-1]]
            begun = bytearray(others[-1])
        if ended:
            whole.append(bytes(begun))
        for line in whole:
            number += 1
            if line.strip():
                batch.append((number, line))
                size += len(line)
            if len(batch) >= _PERSONS_AT_ONCE or size >= _MAX_BATCH_BYTES:
                yield batch
                batch, size = [], 0
        slot.hold(size + len(begun))
    if batch:
        yield batch


def _parsed(lines: list[tuple[int, bytes]], space_id: str) -> list[Entry]:
    entries = []
    for number, line in lines:
        content: Parsed
        try:
            content = decoded(line, space_id)
        except DomainError as error:
            content = error
        entries.append(Entry(f"line {number}", number, content))
    return entries


def _encoded(page: list[PersonRecord], space_id: str) -> bytes:
    return b"".join(encoded(record, space_id) for record in page)


async def _content(spooled: IO[bytes]) -> AsyncIterator[bytes]:
    with spooled:
        spooled.seek(0)
        while piece := await asyncio.to_thread(spooled.read, _PIECE_BYTES):
            yield piece


def _line(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
