"""The journal in the gallery's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.gallery.journal import StoreJournal
from service.ports import JournalEntry, Replay
from tests.unit.gallery.common import open_embedded

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[StoreJournal]:
    gallery = open_embedded(tmp_path)
    yield gallery.journal(kept_days=30)
    await gallery.close()


def entry(action: str, gallery: str = "g", person_id: str | None = "ann", at: datetime = NOW) -> JournalEntry:
    return JournalEntry(at, "k1", action, gallery, person_id, {"faces": 2})


async def test_entries_come_back_newest_first_by_gallery_and_person(journal: StoreJournal) -> None:
    await journal.note(entry("a"))
    await journal.note(entry("b", person_id="bob"))
    await journal.note(entry("c", gallery="h"))
    await journal.note(entry("d", person_id=None))

    async def actions(gallery: str | None = None, person_id: str | None = None, before: int | None = None) -> str:
        found = await journal.entries(gallery=gallery, person_id=person_id, before=before, limit=10)
        return "".join(each.action for _, each in found)

    assert await actions() == "dcba"
    assert await actions("g") == "dba"
    assert await actions("g", "ann") == "a"
    assert await actions(person_id="ann") == "ca"
    ((number, last),) = await journal.entries(gallery=None, person_id=None, before=None, limit=1)
    assert last == entry("d", person_id=None)
    assert await actions(before=number) == "cba"


async def test_an_answer_is_kept_until_whom_it_tells_of_is_erased(journal: StoreJournal) -> None:
    replay = Replay("fingerprint", "g", "ann", b'{"a": 1}')
    await journal.keep("key", replay)
    await journal.keep("other", Replay("f", "g", "bob", b"{}"))
    assert await journal.replay("key") == replay
    assert await journal.replay("nobody") is None
    assert await journal.erase("g", "ann") == 1
    assert await journal.erase("g", "ann") == 0
    # The key stays taken.
    assert await journal.replay("key") == Replay("fingerprint", "g", "ann", None)
    assert await journal.erase("g", None) == 1


async def test_what_is_old_goes(journal: StoreJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    await journal.note(entry("old", at=datetime.now(UTC) - timedelta(days=31)))
    await journal.note(entry("young", at=datetime.now(UTC) - timedelta(days=29)))
    await journal.keep("key", Replay("f", "g", "ann", b"{}"))
    await journal.prune()
    assert [each.action for _, each in await journal.entries(gallery=None, person_id=None, before=None, limit=9)] == [
        "young"
    ]
    assert await journal.replay("key") is not None
    monkeypatch.setattr("service.gallery.journal._REPLAYED_FOR_US", -1)
    assert await journal.replay("key") is None
    await journal.prune()
    monkeypatch.undo()
    assert await journal.replay("key") is None


async def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.journal(kept_days=1).note(entry("a"))
    await gallery.journal(kept_days=1).keep("key", Replay("f", "g", "ann", b"{}"))
    await gallery.close()
    gallery = open_embedded(tmp_path)
    ((_, found),) = await gallery.journal(kept_days=1).entries(gallery="g", person_id=None, before=None, limit=9)
    assert found == entry("a")
    assert await gallery.journal(kept_days=1).replay("key") == Replay("f", "g", "ann", b"{}")
    await gallery.close()
