"""The journal of an embedded gallery: in its database, so that an entry costs no further file and no further lock."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from functools import partial

from service.gallery import records
from service.gallery.readers import Readers
from service.gallery.store import Store, as_it_is
from service.ports import Journal, JournalEntry, Replay

_REPLAYED_FOR_US = 24 * 3_600 * 1_000_000
_PRUNED_AT_ONCE = 5_000
_DAY_US = 24 * 3_600 * 1_000_000


class StoreJournal(Journal):
    """`Journal` in a gallery's store, which whoever made it closes.

    Args:
        kept_days: after which entries go.
    """

    def __init__(self, store: Store, readers: Readers, *, kept_days: int) -> None:
        self._store, self._readers, self._kept_days = store, readers, kept_days

    async def note(self, entry: JournalEntry) -> None:
        """See `Journal.note`; also raises StorageFull, Overloaded, NotReady."""
        await asyncio.wrap_future(self._store.change(partial(_add, entry=entry), publish=as_it_is))

    async def entries(
        self, *, gallery: str | None, person_id: str | None, before: int | None, limit: int
    ) -> list[tuple[int, JournalEntry]]:
        """See `Journal.entries`."""
        question = partial(_entries, gallery=gallery, person_id=person_id, before=before, limit=limit)
        return await self._readers.run(lambda: self._store.read(question))

    async def replay(self, key: str) -> Replay | None:
        """See `Journal.replay`."""
        return await self._readers.run(lambda: self._store.read(partial(_replay, key=key)))

    async def keep(self, key: str, replay: Replay) -> None:
        """See `Journal.keep`; also raises StorageFull, Overloaded, NotReady."""
        await asyncio.wrap_future(self._store.change(partial(_keep, key=key, replay=replay), publish=as_it_is))

    async def erase(self, gallery: str, person_id: str | None) -> int:
        """See `Journal.erase`; also raises StorageFull, Overloaded, NotReady."""
        change = partial(_erase, gallery=gallery, person_id=person_id)
        return await asyncio.wrap_future(self._store.change(change, publish=as_it_is))

    async def prune(self) -> None:
        """See `Journal.prune`; also raises StorageFull, Overloaded, NotReady."""
        change = partial(_prune, kept_us=self._kept_days * _DAY_US)
        while await asyncio.wrap_future(self._store.change(change, publish=as_it_is)) >= _PRUNED_AT_ONCE:
            pass

    async def close(self) -> None:
        """Nothing to let go of: the store is the gallery's."""


def _add(connection: sqlite3.Connection, entry: JournalEntry) -> None:
    connection.execute(
        "INSERT INTO journal (at_us, actor, action, gallery, person_id, counts) VALUES (?, ?, ?, ?, ?, ?)",
        (
            records.microseconds(entry.at),
            entry.actor,
            entry.action,
            entry.gallery,
            entry.person_id,
            json.dumps(dict(entry.counts)),
        ),
    )


def _entries(
    connection: sqlite3.Connection, gallery: str | None, person_id: str | None, before: int | None, limit: int
) -> list[tuple[int, JournalEntry]]:
    rows = connection.execute(
        "SELECT entry_key, at_us, actor, action, gallery, person_id, counts FROM journal "
        "WHERE (?1 IS NULL OR gallery = ?1) AND (?2 IS NULL OR person_id = ?2) AND (?3 IS NULL OR entry_key < ?3) "
        "ORDER BY entry_key DESC LIMIT ?4",
        (gallery, person_id, before, limit),
    )
    return [
        (key, JournalEntry(records.moment(at_us), actor, action, gallery, person_id, json.loads(counts)))
        for key, at_us, actor, action, gallery, person_id, counts in rows
    ]


def _replay(connection: sqlite3.Connection, key: str) -> Replay | None:
    row = connection.execute(
        "SELECT fingerprint, gallery, person_id, answer FROM replays WHERE replay_key = ? AND at_us > ?",
        (key, records.now_us() - _REPLAYED_FOR_US),
    ).fetchone()
    return None if row is None else Replay(*row)


def _keep(connection: sqlite3.Connection, key: str, replay: Replay) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO replays (replay_key, at_us, fingerprint, gallery, person_id, answer) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (key, records.now_us(), replay.fingerprint, replay.gallery, replay.person_id, replay.answer),
    )


def _erase(connection: sqlite3.Connection, gallery: str, person_id: str | None) -> int:
    # The key stays taken: a late repetition must not enrol again who has been erased.
    erased = connection.execute(
        "UPDATE replays SET answer = NULL WHERE gallery = ?1 AND (?2 IS NULL OR person_id = ?2) AND answer IS NOT NULL",
        (gallery, person_id),
    )
    return erased.rowcount


def _prune(connection: sqlite3.Connection, kept_us: int) -> int:
    now_us = records.now_us()
    replays = connection.execute(
        "DELETE FROM replays WHERE replay_key IN (SELECT replay_key FROM replays WHERE at_us <= ? LIMIT ?)",
        (now_us - _REPLAYED_FOR_US, _PRUNED_AT_ONCE),
    )
    entries = connection.execute(
        "DELETE FROM journal WHERE entry_key IN (SELECT entry_key FROM journal WHERE at_us <= ? "
        "ORDER BY entry_key LIMIT ?)",
        (now_us - kept_us, _PRUNED_AT_ONCE),
    )
    return max(replays.rowcount, entries.rowcount)
