"""One store taking over from another: its journal goes on, and so do its revisions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Any

from service.gallery.store import Store, as_it_is

_ROWS_AT_ONCE = 5_000

# What is copied: a column that rows are read along, and all columns.
_TABLES = {
    "journal": ("entry_key", "entry_key, at_us, actor, action, gallery, person_id, counts"),
    "replays": ("replay_key", "replay_key, at_us, fingerprint, gallery, person_id, answer"),
}


def last_revision(connection: sqlite3.Connection) -> int:
    """The revision that the last change made."""
    return int(connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()[0])


def raise_revision(connection: sqlite3.Connection, floor: int) -> None:
    """Count on from `floor` at least, so that no revision means one state here and another there."""
    connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'revision'", (floor,))


def take_over(target: Store, source: Store) -> None:
    """Make the target's journal the source's, and its answers to repeatable requests. Blocks.

    Raises StorageFull, Overloaded, NotReady.
    """
    target.change(partial(raise_revision, floor=source.read(last_revision)), publish=as_it_is).result()
    # Entries never change, so those that are here already need not come again; answers may have been erased.
    after = target.read(_last_entry)
    for table, start in (("journal", after), ("replays", "")):
        if table == "replays":
            target.change(_no_replays, publish=as_it_is).result()
        for rows in _pages(source, table, start):
            target.change(partial(_insert, table=table, rows=rows), publish=as_it_is).result()


def _last_entry(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(entry_key), 0) FROM journal").fetchone()[0])


def _no_replays(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM replays")


def _pages(source: Store, table: str, start: int | str) -> Iterator[list[tuple[Any, ...]]]:
    key, columns = _TABLES[table]
    query = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_ROWS_AT_ONCE}"  # noqa: S608
    while rows := source.read(partial(_selected, query=query, after=start)):
        yield rows
        start = rows[-1][0]


def _selected(connection: sqlite3.Connection, query: str, after: int | str) -> list[tuple[Any, ...]]:
    return connection.execute(query, (after,)).fetchall()


def _insert(connection: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    places = ", ".join("?" * len(rows[0]))
    columns = _TABLES[table][1]
    connection.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})", rows)  # noqa: S608
