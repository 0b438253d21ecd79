"""What a large gallery keeps on disk of its index: that it is used, never believed blindly, and holds nobody erased."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.domain import PersonRecord
from service.gallery import columns
from service.gallery.columns import Rows
from service.gallery.embedded import EmbeddedGallery
from service.gallery.snapshot import INDEX_FOLDER, Snapshot, SnapshotDamaged, SnapshotFolder, reconciled
from tests.unit.gallery.common import DIMENSION, SPACE, embedding, new_face, open_embedded

PERSONS = 400
IDS = [f"{person}-{face}-é" for person in range(PERSONS) for face in range(2)]


def opened(folder: Path, **options: object) -> EmbeddedGallery:
    return open_embedded(folder, exact_up_to=0, **options)


async def filled(folder: Path) -> EmbeddedGallery:
    gallery = opened(folder)
    records = [
        PersonRecord(f"p{person}", None, {}, tuple(new_face(f"{person}-{face}-é") for face in range(2)))
        for person in range(PERSONS)
    ]
    await gallery.import_persons("g", records)
    return gallery


async def found(gallery: EmbeddedGallery, ids: list[str] = IDS) -> list[str]:
    probes = np.stack([embedding(face_id) for face_id in ids])
    return [result.matches[0].face_id for result in await gallery.search("g", probes, 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def fill() -> None:
        await (await filled(tmp_path / "data")).close()

    asyncio.run(fill())
    return tmp_path / "data"


def snapshot_of(folder: Path) -> SnapshotFolder:
    home = folder / INDEX_FOLDER / "g"
    return SnapshotFolder(home, space_id=SPACE, dimension=DIMENSION, dtype=np.dtype(np.float32))


def file_of(folder: Path, name: str) -> Path:
    (path,) = (folder / INDEX_FOLDER / "g").glob(f"*/{name}")
    return path


@pytest.mark.anyio
async def test_a_start_reads_from_the_store_only_what_the_snapshot_lacks(folder: Path) -> None:
    reads: list[tuple[int, int]] = []
    gallery = opened(folder, progress=lambda done, total: reads.append((done, total)))
    assert reads == []
    assert await found(gallery) == IDS
    await gallery.enrol("g", "new", None, {}, [new_face("n1"), new_face("n2")])
    shutil.copytree(folder / INDEX_FOLDER, folder.parent / "kept")
    await gallery.close()
    # As after a kill: the files as they were before the end.
    shutil.rmtree(folder / INDEX_FOLDER)
    shutil.move(folder.parent / "kept", folder / INDEX_FOLDER)
    again = opened(folder, progress=lambda done, total: reads.append((done, total)))
    assert reads == [(2, 2)]
    assert await found(again, [*IDS, "n2"]) == [*IDS, "n2"]
    await again.close()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.anyio
async def test_nothing_of_the_erased_is_left_in_any_file(folder: Path) -> None:
    gallery = opened(folder)
    assert any("307-1-é".encode() in content for content in contents(folder / INDEX_FOLDER).values())
    for number in (211, 307):
        await gallery.forget_person("g", f"p{number}")
        # At the acknowledgement, while the service goes on.
        for face_id in (f"{number}-0-é", f"{number}-1-é"):
            for path, content in contents(folder).items():
                assert embedding(face_id).tobytes()[:32] not in content, path
            for path, content in contents(folder / INDEX_FOLDER).items():
                assert face_id.encode() not in content, path
    await gallery.close()


@pytest.mark.anyio
async def test_a_deletion_that_was_not_carried_out_in_the_snapshot_is_made_good(folder: Path) -> None:
    before = shutil.copytree(folder / INDEX_FOLDER, folder.parent / "before")
    gallery = opened(folder)
    await gallery.forget_person("g", "p3")
    await gallery.close()
    shutil.rmtree(folder / INDEX_FOLDER)
    shutil.move(before, folder / INDEX_FOLDER)
    assert embedding("3-0-é").tobytes() in file_of(folder, "vectors").read_bytes()
    reads: list[tuple[int, int]] = []
    again = opened(folder, progress=lambda done, total: reads.append((done, total)))
    assert reads == []
    assert embedding("3-0-é").tobytes() not in file_of(folder, "vectors").read_bytes()
    (result,) = await again.search("g", embedding("3-0-é")[np.newaxis], 1)
    assert (result.matches[0].person_id != "p3", result.gallery_size) == (True, 2 * PERSONS - 2)
    await again.close()


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def forged_manifest(folder: Path) -> None:
    path = folder / INDEX_FOLDER / "g" / "snapshot.json"
    path.write_text(path.read_text().replace('\\"revision\\": 1', '\\"revision\\": 0'))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "vector": lambda folder: flipped(file_of(folder, "vectors"), 777 * DIMENSION * 4 + 5),
    "key": lambda folder: flipped(file_of(folder, "keys"), 300 * 8),
    "person": lambda folder: flipped(file_of(folder, "persons"), 500 * 8),
    "id": lambda folder: flipped(file_of(folder, "id_words"), 640 * 8),
    "id end": lambda folder: flipped(file_of(folder, "id_ends"), 640 * 8),
    "checksum": lambda folder: flipped(file_of(folder, "checks"), 799 * 8),
    "short file": lambda folder: os.truncate(file_of(folder, "vectors"), 1000),
    "no file": lambda folder: file_of(folder, "persons").unlink(),
    "manifest": forged_manifest,
    "empty manifest": lambda folder: (folder / INDEX_FOLDER / "g" / "snapshot.json").write_text(""),
    "no manifest": lambda folder: (folder / INDEX_FOLDER / "g" / "snapshot.json").unlink(),
}


@pytest.mark.anyio
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_snapshot_is_built_again(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    DAMAGES[damage](folder)
    reads: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        gallery = opened(folder, progress=lambda done, total: reads.append((done, total)))
    assert reads[-1] == (2 * PERSONS, 2 * PERSONS)
    assert ("not used" in caplog.text) == (damage != "no manifest")
    assert await found(gallery) == IDS
    await gallery.close()
    reads.clear()
    again = opened(folder, progress=lambda done, total: reads.append((done, total)))
    assert reads == []
    await again.close()


@pytest.mark.anyio
async def test_a_snapshot_that_lacks_faces_in_between_is_not_believed(folder: Path) -> None:
    loaded = snapshot_of(folder).load()
    assert loaded is not None
    kept, snapshot = loaded
    keys = kept.keys.array[: snapshot.rows].copy()
    assert reconciled(kept, snapshot.rows, keys).all()
    with pytest.raises(SnapshotDamaged, match="lacks 1 faces"):
        reconciled(kept, snapshot.rows, np.sort(np.append(keys, 0)))
    assert not reconciled(kept, snapshot.rows, np.empty(0, dtype=np.int64)).any()
    assert SnapshotFolder(
        folder / INDEX_FOLDER / "g", space_id=SPACE, dimension=DIMENSION, dtype=np.dtype(np.float32)
    ).load()
    with pytest.raises(SnapshotDamaged, match="other embeddings"):
        SnapshotFolder(
            folder / INDEX_FOLDER / "g", space_id="sf1-other", dimension=DIMENSION, dtype=np.dtype(np.float32)
        ).load()


@pytest.mark.anyio
async def test_a_disk_that_is_full_costs_the_snapshot_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    gallery = await filled(tmp_path / "data")
    await asyncio.to_thread(gallery._indexes._upkeep.submit(lambda: None).result, 30)
    assert (tmp_path / "data" / INDEX_FOLDER / "g" / "snapshot.json").exists()
    monkeypatch.setattr(columns.os, "posix_fallocate", full)
    more = [f"m{number}" for number in range(900)]
    records = [PersonRecord(f"q{face_id}", None, {}, (new_face(face_id),)) for face_id in more]
    with caplog.at_level(logging.WARNING):
        for start in range(0, len(records), 50):
            await gallery.import_persons("g", records[start : start + 50])
        await asyncio.to_thread(gallery._indexes._upkeep.submit(lambda: None).result, 30)
    assert "no more snapshots" in caplog.text
    assert not list((tmp_path / "data" / INDEX_FOLDER / "g").rglob("vectors"))
    await gallery.forget_person("g", "p5")
    kept = [face_id for face_id in IDS if not face_id.startswith("5-")]
    assert await found(gallery, [*kept, *more]) == [*kept, *more]
    await gallery.close()
    monkeypatch.undo()
    again = opened(tmp_path / "data")
    assert await found(again, [*kept, *more]) == [*kept, *more]
    await again.close()
    assert (tmp_path / "data" / INDEX_FOLDER / "g" / "snapshot.json").exists()


@pytest.mark.anyio
async def test_a_float16_matrix_finds_the_same_people(tmp_path: Path) -> None:
    gallery = await filled(tmp_path / "data")
    await gallery.close()
    for _ in range(2):
        half = opened(tmp_path / "data", matrix="float16")
        assert await found(half) == IDS
        probes = np.stack([embedding(face_id) for face_id in IDS[::50]])
        sifted, exact = await half.search("g", probes, 3), await half.search("g", probes, 3, exact=True)
        assert sifted == exact
        assert all(abs(result.matches[0].similarity - 1) < 1e-3 for result in sifted)
        await half.close()
    rows = file_of(tmp_path / "data", "keys").stat().st_size // 8
    assert file_of(tmp_path / "data", "vectors").stat().st_size == 2 * DIMENSION * rows


def test_rows_survive_growth_copies_and_blanking(tmp_path: Path) -> None:
    rng = random.Random(3)
    ids = ["x" * rng.randrange(1, 128) if rng.random() < 0.5 else "ß" * rng.randrange(1, 60) for _ in range(300)]
    vectors = np.stack([embedding(str(number)) for number in range(300)])
    for home in (None, tmp_path / "rows"):
        if home is not None:
            home.mkdir()
        kept = Rows(DIMENSION, folder=home)
        for start in range(0, 300, 60):
            kept.reserve(start + 60)
            part = slice(start, start + 60)
            kept.append(start, vectors[part], np.arange(start, start + 60), np.arange(60), ids[part])
        chosen = np.array([0, 3, 4, 150, 299])
        copy = Rows(DIMENSION)
        copy.reserve(10)
        copy.copy(0, kept, chosen[:2])
        copy.copy(2, kept, chosen[2:])
        assert np.array_equal(copy.checks.array[:5], copy.checksums(0, 5))
        assert np.array_equal(copy.vectors.array[:5], vectors[chosen])
        copy.blank(np.array([1, 4]))
        assert copy.blank_rows(np.arange(5)).tolist() == [False, True, False, False, True]
        assert (copy.checks.array[:5] == copy.checksums(0, 5)).tolist() == [True, False, True, True, False]


def test_a_snapshot_of_nothing_is_none(tmp_path: Path) -> None:
    home = SnapshotFolder(tmp_path / "g", space_id=SPACE, dimension=DIMENSION, dtype=np.dtype(np.float32))
    assert home.load() is None
    kept = home.begin()
    kept.reserve(4)
    kept.append(0, np.eye(DIMENSION, dtype=np.float32)[:2], np.arange(2), np.arange(2), ["a", "b"])
    # Begun and never saved, as after a kill.
    assert home.load() is None
    home.save(kept, Snapshot(rows=2, revision=5))
    loaded = home.load()
    assert loaded is not None and (loaded[1].rows, loaded[1].revision) == (2, 5)
