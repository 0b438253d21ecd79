"""The writer's memory follows how much is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from service.gallery import page_cache
from service.gallery.page_cache import FEW_KIB, MANY_KIB, PageCache
from service.gallery.writer import GroupCommitter


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(tmp_path / "d.sqlite", isolation_level=None, check_same_thread=False)
    made.execute("CREATE TABLE t (value INTEGER PRIMARY KEY)")
    return made


def kib(connection: sqlite3.Connection) -> int:
    return -int(connection.execute("PRAGMA cache_size").fetchone()[0])


def insert(connection: sqlite3.Connection, count: int) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO t (value) SELECT NULL FROM n",
        (count,),
    )


def test_many_rows_within_ten_seconds_take_more_memory_for_as_long(connection: sqlite3.Connection) -> None:
    now = [100.0]
    pages = PageCache(connection, lambda: now[0])
    assert kib(connection) == FEW_KIB
    told = []
    for seconds, rows in ((1, 4_000), (9, 500), (1, 4_000), (1, 1_000), (9, 900), (1, 100), (1, 6_000), (10, 0)):
        now[0] += seconds
        insert(connection, max(rows, 1))
        pages.follow()
        told.append(kib(connection))
    few, many = FEW_KIB, MANY_KIB
    assert told == [few, few, few, many, many, few, many, few]


def test_the_writer_asks_for_it(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = GroupCommitter(connection, max_pending=10)
    writer.submit(lambda own: insert(own, 10), lambda _: None).result(10)
    sizes = [writer.submit(kib, lambda found: found).result(10)]
    writer.submit(lambda own: insert(own, 6_000), lambda _: None).result(10)
    sizes.append(writer.submit(kib, lambda found: found).result(10))
    monkeypatch.setattr(page_cache, "_WITHIN_S", 0.0)
    writer.submit(lambda own: insert(own, 1), lambda _: None).result(10)
    sizes.append(writer.submit(kib, lambda found: found).result(10))
    writer.close()
    assert sizes == [FEW_KIB, MANY_KIB, FEW_KIB]
