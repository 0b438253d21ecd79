"""The embedded gallery where it meets the disk: schema, lock, commits, erasure, and what goes wrong there."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import service
from service.domain import (
    FolderInUse,
    NotReady,
    Overloaded,
    PersonExists,
    PersonNotFound,
    SpaceMismatch,
    StorageFull,
    StorageUnusable,
)
from service.gallery import erasing
from service.gallery.embedded import EmbeddedGallery
from service.gallery.schema import DATABASE_FILE, MIGRATIONS, migrate
from service.gallery.store import as_it_is
from tests.unit.gallery.common import DIMENSION, SPACE, embedding, new_face, open_embedded

REPOSITORY = Path(service.__file__).parents[1]


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


class HeldWriter:
    """Keeps the writer busy within a transaction, so that what is queued meanwhile shares the next one."""

    def __init__(self, gallery: EmbeddedGallery) -> None:
        self._go = threading.Event()
        started = threading.Event()
        self.writer = gallery._store.writer
        self._future = self.writer.submit(lambda _: (started.set(), self._go.wait(30)), lambda done: done)
        assert started.wait(30)

    def release(self) -> None:
        self._go.set()
        self._future.result(30)


def limit_pages(gallery: EmbeddedGallery, spare: int) -> None:
    """Leave the database room for `spare` more pages; a negative number takes the limit away."""

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + spare if spare >= 0 else 2**30}").fetchall()

    gallery._store.writer.submit(limit, lambda done: done).result(30)


def test_migrations_run_in_order_and_a_failing_one_leaves_the_version_before_it() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    latest = len(MIGRATIONS)
    following = ("ALTER TABLE persons ADD COLUMN note TEXT",)
    migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (latest,)
    with pytest.raises(sqlite3.Error):
        migrate(connection, (*MIGRATIONS, following, ("CREATE TABLE t (x)", "no SQL")))
    assert connection.execute("PRAGMA user_version").fetchone() == (latest + 1,)
    assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchall()
    migrate(connection, (*MIGRATIONS, following))
    with pytest.raises(StorageUnusable, match="newer release"):
        migrate(connection)


@pytest.mark.anyio
async def test_the_database_is_set_up_for_durability_and_erasure(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    pragmas = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "temp_store")

    def read(connection: sqlite3.Connection) -> list[object]:
        return [connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas]

    assert gallery._store.writer.submit(read, lambda found: found).result(30) == ["wal", 2, 1, 1, 2]
    with gallery._store._readers.connection() as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM persons")
    await gallery.close()


@pytest.mark.anyio
async def test_another_embedding_space_is_refused_with_a_way_out(tmp_path: Path) -> None:
    await open_embedded(tmp_path).close()
    for space, dimension in (("sf1-other", DIMENSION), (SPACE, 128)):
        with pytest.raises(SpaceMismatch, match=r"new folder") as caught:
            EmbeddedGallery.open(tmp_path, space_id=space, dimension=dimension)
        assert SPACE in caught.value.message
    # The refusal let go of the folder.
    await open_embedded(tmp_path).close()


@pytest.mark.anyio
async def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    with pytest.raises(FolderInUse):
        open_embedded(tmp_path)
    code = (
        "import sys, pathlib\n"
        "from service.domain import FolderInUse\n"
        "from tests.unit.gallery.common import open_embedded\n"
        "try: open_embedded(pathlib.Path(sys.argv[1]))\n"
        "except FolderInUse as error: print('refused', error.message)\n"
    )
    assert run_python(code, tmp_path).stdout.startswith("refused")
    await gallery.enrol("g", "ann", None, {}, [new_face("f")])
    await gallery.close()
    assert run_python(code, tmp_path).returncode == 0
    assert not run_python(code, tmp_path).stdout


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageUnusable):
        open_embedded(tmp_path / "file")
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageUnusable):
        open_embedded(tmp_path)


@pytest.mark.anyio
async def test_waiting_changes_share_a_commit_and_do_not_share_failures(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "p7", None, {}, [new_face("first")])
    held = HeldWriter(gallery)
    before = held.writer.commits
    tasks = [asyncio.create_task(gallery.enrol("g", f"p{i}", None, {}, [new_face(f"f{i}")])) for i in range(40)]
    tasks.append(asyncio.create_task(gallery.forget_person("g", "nobody")))
    await asyncio.sleep(0.05)
    held.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert held.writer.commits - before == 2  # the one that held the writer, and one for all that waited
    assert [type(o) for o in outcomes if isinstance(o, Exception)] == [PersonExists, PersonNotFound]
    assert (await gallery.summary("g")).persons == 40
    await gallery.close()


@pytest.mark.anyio
async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path, max_pending=3)
    held = HeldWriter(gallery)
    tasks = [asyncio.create_task(gallery.enrol("g", f"p{i}", None, {}, [new_face(f"f{i}")])) for i in range(5)]
    await asyncio.sleep(0.05)
    held.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(o) for o in outcomes if isinstance(o, Exception)] == [Overloaded] * 2
    assert (await gallery.summary("g")).persons == 3
    await gallery.close()


@pytest.mark.anyio
async def test_a_cancelled_caller_leaves_all_or_nothing(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    held = HeldWriter(gallery)
    waiting = [asyncio.create_task(gallery.enrol("g", f"w{i}", None, {}, [new_face(f"w{i}")])) for i in range(10)]
    await asyncio.sleep(0.05)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.sleep(0.01)
    held.release()
    await asyncio.gather(*waiting, return_exceptions=True)
    kept = {person.person_id for person in await gallery.persons("g", after=None, limit=100)}
    assert kept == {f"w{i}" for i in range(1, 10, 2)}
    # Cancelled at any moment, also while it runs.
    for i in range(40):
        task = asyncio.create_task(gallery.enrol("g", f"r{i}", None, {}, [new_face(f"r{i}"), new_face(f"r{i}b")]))
        await asyncio.sleep(random.uniform(0, 0.002))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await gallery.enrol("g", "last", None, {}, [new_face("last")])
    persons = await gallery.persons("g", after=None, limit=100)
    assert all(len(person.face_ids) == 2 for person in persons if person.person_id.startswith("r"))
    faces = sum(len(person.face_ids) for person in persons)
    assert (await gallery.summary("g")).faces == faces
    assert (await gallery.search("g", embedding("last")[np.newaxis], 1))[0].gallery_size == faces
    await gallery.close()


@pytest.mark.anyio
async def test_a_full_database_refuses_and_keeps_nothing_of_it_while_the_rest_goes_on(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "ann", None, {}, [new_face("a")])
    limit_pages(gallery, 4)
    held = HeldWriter(gallery)
    many = [new_face(f"m{i}") for i in range(500)]
    tasks = [
        asyncio.create_task(gallery.enrol("g", "bob", None, {}, [new_face("b")])),
        asyncio.create_task(gallery.enrol("g", "many", None, {}, many)),
        asyncio.create_task(gallery.forget_person("g", "ann")),
    ]
    await asyncio.sleep(0.05)
    held.release()
    bob, failure, removal = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(failure, StorageFull)
    assert (bob.face_ids, removal.faces) == (("b",), 1)
    with pytest.raises(PersonNotFound):
        await gallery.person("g", "many")
    assert (await gallery.search("g", embedding("b")[np.newaxis], 9))[0].gallery_size == 1
    limit_pages(gallery, -1)
    await gallery.enrol("g", "many", None, {}, many)
    await gallery.close()
    gallery = open_embedded(tmp_path)
    assert (await gallery.summary("g")).faces == 501
    await gallery.close()


def test_a_disk_that_takes_no_more_fails_the_commit_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk: the write of the log itself fails."""
    code = """
import asyncio, pathlib, resource, sys
from service.domain import StorageFull
from tests.unit.gallery.common import new_face, open_embedded

async def main():
    gallery = open_embedded(pathlib.Path(sys.argv[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    stored, full = [], 0
    for i in range(200):
        try:
            await gallery.enrol("g", f"p{i}", None, {}, [new_face(f"p{i}-{j}") for j in range(3)])
            stored.append(f"p{i}")
        except StorageFull:
            full += 1
    assert stored and full, (stored, full)
    persons = await gallery.persons("g", after=None, limit=1000)
    assert sorted(p.person_id for p in persons) == sorted(stored)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await gallery.enrol("g", "after", None, {}, [new_face("after")])
    await gallery.close()
    gallery = open_embedded(pathlib.Path(sys.argv[1]))
    summary = await gallery.summary("g")
    assert (summary.persons, summary.faces) == (len(stored) + 1, 3 * len(stored) + 1), summary
    await gallery.close()
    print("kept", len(stored), "refused", full)

asyncio.run(main())
"""
    finished = run_python(code, tmp_path)
    assert finished.stdout.startswith("kept"), finished.stderr


@pytest.mark.anyio
async def test_reopening_rebuilds_the_indexes_and_tells_how_far_it_is(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    for number in range(3):
        faces = [new_face(f"{number}-{i}") for i in range(4_000)]
        await gallery.enrol(f"g{number % 2}", f"p{number}", None, {}, faces)
    await gallery.forget_person("g1", "p1")
    await gallery.close()
    seen: list[tuple[int, int]] = []
    gallery = EmbeddedGallery.open(
        tmp_path, space_id=SPACE, dimension=DIMENSION, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(8_000, 8_000)]
    probes = np.stack([embedding("2-17"), embedding("1-3")])
    mate, stranger = await gallery.search("g0", probes, 1)
    assert (mate.matches[0].face_id, mate.matches[0].similarity) == ("2-17", pytest.approx(1.0))
    assert stranger.matches[0].similarity < 0.9
    assert (await gallery.search("g1", probes, 1))[0].gallery_size == 0
    await gallery.close()


@pytest.mark.anyio
@pytest.mark.parametrize("damage", ["short", "nan", "scaled", "blank", "missing"])
async def test_a_damaged_embedding_is_named(tmp_path: Path, damage: str) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("staff", "ann", None, {}, [new_face("fine"), new_face("broken")])
    await gallery.close()
    value = {
        "short": embedding("broken")[:-1].tobytes(),
        "nan": np.full(DIMENSION, np.nan, dtype=np.float32).tobytes(),
        "scaled": (embedding("broken") * 1.1).tobytes(),
        "blank": bytes(4 * DIMENSION),
        "missing": None,
    }[damage]
    connection = sqlite3.connect(tmp_path / DATABASE_FILE)
    connection.execute(
        "DELETE FROM embeddings WHERE face_key = 2"
        if value is None
        else "UPDATE embeddings SET vector = ? WHERE face_key = 2",
        () if value is None else (value,),
    )
    connection.commit()
    connection.close()
    with pytest.raises(StorageUnusable, match="face broken in gallery staff"):
        open_embedded(tmp_path)


def pieces(face_id: str) -> list[bytes]:
    """Stretches of an embedding long enough to be nobody else's."""
    whole = embedding(face_id).tobytes()
    return [whole[i : i + 16] for i in range(0, len(whole), 48)]


def all_bytes(folder: Path) -> bytes:
    """All files, read by another process: closing the database's file in this one would drop SQLite's locks on it."""
    code = (
        "import sys, pathlib\n"
        "for f in pathlib.Path(sys.argv[1]).rglob('*'):\n"
        "    if f.is_file(): sys.stdout.buffer.write(f.read_bytes())"
    )
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.anyio
async def test_the_embeddings_of_the_forgotten_are_nowhere_in_the_folder(tmp_path: Path) -> None:
    rng = random.Random(5)
    gallery = open_embedded(tmp_path)
    alive: list[str] = []
    gone: list[str] = []
    for step in range(200):
        person_id = f"p{rng.randrange(10**6):06}-{step}"
        faces = [new_face(f"{person_id}-{i}") for i in range(rng.randrange(1, 4))]
        await gallery.enrol("g", person_id, "n" * rng.randrange(60), {}, faces)
        alive.append(person_id)
        if rng.random() < 0.6:
            gone.append(alive.pop(rng.randrange(len(alive))))
            await gallery.forget_person("g", gone[-1])
    # Acknowledged is enough: the log was carried over and cut before the answer.
    await gallery.forget_person("g", alive[-1])
    gone.append(alive.pop())
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert all(piece in files for person_id in alive for piece in pieces(f"{person_id}-0"))
    left = [person_id for person_id in gone for i in range(3) for piece in pieces(f"{person_id}-{i}") if piece in files]
    assert not left
    await gallery.close()


@pytest.mark.anyio
async def test_a_slow_reader_delays_the_erasure_but_not_the_answer(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "ann", None, {}, [new_face("a")])
    with gallery._store._readers.connection() as reader:
        reader.execute("SELECT count(*) FROM faces").fetchone()
        await asyncio.wait_for(gallery.forget_person("g", "ann"), timeout=5)
        assert (tmp_path / f"{DATABASE_FILE}-wal").stat().st_size > 0
    for _ in range(100):
        await asyncio.sleep(0.02)
        if (tmp_path / f"{DATABASE_FILE}-wal").stat().st_size == 0:
            break
    assert (tmp_path / f"{DATABASE_FILE}-wal").stat().st_size == 0
    await gallery.close()


@pytest.mark.anyio
async def test_an_index_that_cannot_follow_stops_the_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "ann", None, {}, [new_face("a")])

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service.gallery.index.FaceIndex.add", fail)
    for person_id in ("bob", "cid"):
        with pytest.raises(NotReady, match="restart"):
            await gallery.enrol("g", person_id, None, {}, [new_face(person_id)])
    await gallery.close()
    monkeypatch.undo()
    gallery = open_embedded(tmp_path)
    assert {person.person_id for person in await gallery.persons("g", after=None, limit=9)} == {"ann", "bob"}
    await gallery.close()


@pytest.mark.anyio
async def test_a_person_deleted_during_a_search_leaves_no_gap(tmp_path: Path) -> None:
    """Committed but not yet out of the index: the search answers as if the deletion were complete."""
    gallery = open_embedded(tmp_path)
    for i in range(6):
        await gallery.enrol("g", f"p{i}", None, {}, [new_face(f"f{i}")])
    probe = embedding("f2")[np.newaxis]
    (before,) = await gallery.search("g", probe, 6)
    gallery._store.change(partial(erasing.forget, gallery="g", person_id="p2"), publish=as_it_is).result(30)
    (after,) = await gallery.search("g", probe, 5)
    assert after.matches == before.matches[1:]
    await gallery.close()


@pytest.mark.anyio
async def test_a_gallery_past_its_limit_is_sifted_now_and_after_a_restart(tmp_path: Path) -> None:
    recalls: list[float] = []
    gallery = open_embedded(tmp_path, exact_up_to=900, on_recall=recalls.append)
    ids = [f"f{i}" for i in range(1_200)]
    for start in range(0, len(ids), 300):
        await gallery.enrol("g", f"p{start}", None, {}, [new_face(face_id) for face_id in ids[start : start + 300]])
    # One job at a time and in order: when this one is through, the fitting before it is.
    await asyncio.to_thread(gallery._indexes._upkeep.submit(lambda: None).result, 30)
    assert gallery._indexes.begun("g").sifted
    probes = np.stack([embedding(face_id) for face_id in ids[::100]])
    answers = await gallery.search("g", probes, 1)
    assert [answer.matches[0].face_id for answer in answers] == ids[::100]
    assert await gallery.search("g", probes, 4, exact=True) == await gallery.search("g", probes, 4)
    await asyncio.to_thread(gallery._indexes._upkeep.submit(lambda: None).result, 30)
    # Searches come in quick succession and are sampled once a second.
    assert recalls == [1.0]
    await gallery.close()
    again = open_embedded(tmp_path, exact_up_to=900)
    assert again._indexes.begun("g").sifted == 1_200
    assert await again.search("g", probes, 1) == answers
    await again.forget_person("g", "p0")
    (gone,) = await again.search("g", probes[:1], 1)
    assert (gone.gallery_size, gone.matches[0].person_id != "p0") == (900, True)
    await again.close()
