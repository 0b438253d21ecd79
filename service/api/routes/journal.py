"""Who changed what, and when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.access import Scope
from service.api.cursors import seal, unseal
from service.api.dependencies import Running
from service.api.problems import CursorInvalid, documented
from service.api.schemas.people import JournalEntryOut, JournalOut
from service.api.security import Authenticated

router = APIRouter(prefix="/v1/journal", tags=["operations"])


@router.get(
    "", response_model=JournalOut, summary="Read the journal", responses=documented("cursor-invalid", "invalid-request")
)
async def read_journal(
    running: Running,
    caller: Authenticated,
    gallery: Annotated[str | None, Query(max_length=64)] = None,
    person_id: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> JournalOut:
    """Changes and exports, newest first: actor, action, gallery, person and counts; nothing biometric and no name.

    With the galleries in Milvus the entries are in the log instead, and this list is empty.
    """
    if gallery is None:
        caller.require_everywhere(Scope.ADMIN)
    else:
        caller.require(Scope.ADMIN, gallery)
    entries = await running.journal.entries(
        gallery=gallery, person_id=person_id, before=_number(cursor), limit=limit + 1
    )
    page = entries[:limit]
    return JournalOut(
        entries=[JournalEntryOut.of(number, entry) for number, entry in page],
        next_cursor=seal("j", str(page[-1][0])) if len(entries) > limit else None,
    )


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    position = unseal("j", cursor)
    if not (position.isascii() and position.isdecimal() and len(position) < 19):
        raise CursorInvalid("the cursor was not handed out by this service for this list")
    return int(position)
