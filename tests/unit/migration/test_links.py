"""The journal of whichever model is served."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from service.domain import StorageFull
from service.journal import LogJournal
from service.migration import Gate, ServedJournal
from service.ports import JournalEntry

pytestmark = pytest.mark.anyio


class FullJournal(LogJournal):
    async def note(self, entry):
        raise StorageFull("the disk is full")


async def test_an_entry_that_finds_no_room_goes_to_the_log():
    entry = JournalEntry(datetime.now(UTC), "key:1", "person.enrol", "staff", "ada", {"faces": 2})
    with capture_logs() as logged:
        await ServedJournal(FullJournal(), Gate()).note(entry)
    (line,) = logged
    assert (line["log_level"], line["problem"]) == ("error", "storage-full")
    assert (line["actor"], line["action"], line["gallery"], line["person_id"]) == (
        "key:1", "person.enrol", "staff", "ada",
    )  # fmt: skip
    assert line["faces"] == 2
