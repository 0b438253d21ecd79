"""That nothing of the erased is left in any file: names, metadata, crops, galleries; and what a start finishes."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from service.domain import GalleryNotFound, GallerySettings, NewFace, PersonChange
from service.gallery import erasing
from service.gallery.audit import audit
from service.gallery.embedded import EmbeddedGallery
from service.gallery.schema import DATABASE_FILE, MIGRATIONS, migrate
from service.gallery.snapshot import INDEX_FOLDER
from service.gallery.store import as_it_is
from tests.unit.gallery.common import DIMENSION, SPACE, embedding, new_face, open_embedded
from tests.unit.gallery.test_store import all_bytes, pieces

pytestmark = pytest.mark.anyio


def crop(person_id: str) -> bytes:
    """Bytes that nobody else's crop has, long enough to fill pages of their own."""
    return np.random.default_rng(list(person_id.encode())).bytes(9_000)


def face_with_crop(person_id: str, number: int) -> NewFace:
    return replace(new_face(f"{person_id}-{number}"), crop=crop(f"{person_id}-{number}"))


def traces(files: bytes, person_id: str, faces: int) -> list[str]:
    """What is left of somebody."""
    found = [f"name of {person_id}"] if f"name-{person_id}".encode() in files else []
    found += [f"metadata of {person_id}"] if f"note-{person_id}".encode() in files else []
    for number in range(faces):
        image = crop(f"{person_id}-{number}")
        if any(image[at : at + 24] in files for at in range(0, len(image) - 24, 500)):
            found.append(f"crop {number} of {person_id}")
        if any(piece in files for piece in pieces(f"{person_id}-{number}")):
            found.append(f"embedding {number} of {person_id}")
    return found


async def test_names_metadata_and_crops_of_the_forgotten_are_nowhere_in_the_folder(tmp_path: Path) -> None:
    rng = random.Random(8)
    gallery = open_embedded(tmp_path)
    await gallery.create_gallery("g", GallerySettings(keep_crops=True))
    alive: dict[str, int] = {}
    gone: dict[str, int] = {}
    for step in range(160):
        person_id = f"p{rng.randrange(10**6):06}x{step}"
        faces = [face_with_crop(person_id, number) for number in range(rng.randrange(1, 4))]
        metadata = {"about": f"note-{person_id}" * rng.randrange(1, 20)}
        await gallery.enrol("g", person_id, f"name-{person_id}" + "n" * rng.randrange(100), metadata, faces)
        alive[person_id] = len(faces)
        if rng.random() < 0.3:
            # Another name in place of one of another length: rows around it would move.
            await gallery.update_person("g", rng.choice(list(alive)), PersonChange(name="n" * rng.randrange(200)))
        if rng.random() < 0.6:
            leaves = rng.choice(list(alive))
            gone[leaves] = alive.pop(leaves)
            removal = await gallery.forget_person("g", leaves)
            assert removal.crops == gone[leaves]
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert len(gone) > 80
    assert [trace for person_id, faces in gone.items() for trace in traces(files, person_id, faces)] == []
    kept = next(iter(alive))
    assert "crop 0 of " + kept in traces(files, kept, alive[kept])
    await gallery.close()
    assert audit(tmp_path).findings == ()


async def test_a_name_that_was_changed_is_gone_with_the_answer(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "ann", "Annabel Lee", {"town": "by the sea"}, [new_face("f")])
    await gallery.update_person("g", "ann", PersonChange(name="Ann", metadata={}))
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert b"Annabel" not in files
    assert b"by the sea" not in files
    person = await gallery.person("g", "ann")
    assert (person.name, person.metadata) == ("Ann", {})
    await gallery.close()


async def test_nothing_is_left_of_a_dropped_gallery_and_a_start_finishes_a_drop(tmp_path: Path) -> None:
    gallery = open_embedded(tmp_path, exact_up_to=200)
    await gallery.create_gallery("g", GallerySettings(keep_crops=True))
    for number in range(30):
        await gallery.enrol("g", f"p{number}", f"name-p{number}", {}, [face_with_crop(f"p{number}", 0)])
        await gallery.enrol("h", f"p{number}", None, {}, [new_face(f"h{number}-{i}") for i in range(40)])
    removal = await gallery.drop_gallery("g")
    assert (removal.persons, removal.faces, removal.crops) == (30, 30, 30)
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert [trace for number in range(30) for trace in traces(files, f"p{number}", 1)] == []
    await gallery.close()
    assert (tmp_path / INDEX_FOLDER / "h").is_dir()

    # The name goes with the first commit; killed here, the rows are erased by the next start.
    gallery = open_embedded(tmp_path, exact_up_to=200)
    gallery._store.change(partial(erasing.begin_drop, gallery="h", expected_revision=None), publish=as_it_is).result(30)
    with pytest.raises(GalleryNotFound):
        await gallery.summary("h")
    await gallery.close()
    gallery = open_embedded(tmp_path, exact_up_to=200)
    assert await gallery.galleries() == []
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert not any(piece in files for piece in pieces("h3-7"))
    assert not (tmp_path / INDEX_FOLDER / "h").exists()
    await gallery.enrol("h", "new", None, {}, [new_face("new")])
    assert (await gallery.search("h", embedding("new")[np.newaxis], 1))[0].gallery_size == 1
    await gallery.close()
    assert audit(tmp_path).findings == ()


async def test_an_expired_face_is_hidden_by_the_search_itself_and_also_after_a_restart(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    gallery = open_embedded(tmp_path)
    await gallery.enrol("g", "ann", None, {}, [replace(new_face("brief"), expires_at=soon), new_face("lasting")])
    probe = embedding("brief")[np.newaxis]
    assert (await gallery.search("g", probe, 1))[0].matches[0].face_id == "brief"
    await asyncio.sleep(0.45)
    # Nobody has erased it yet.
    (result,) = await gallery.search("g", probe, 1)
    assert (result.matches[0].face_id, result.gallery_size) == ("lasting", 1)
    await gallery.close()
    gallery = open_embedded(tmp_path)
    (result,) = await gallery.search("g", probe, 1)
    assert (result.matches[0].face_id, result.gallery_size) == ("lasting", 1)
    (expiry,) = await gallery.erase_expired()
    assert (expiry.gallery, expiry.person_id, expiry.removal.faces, expiry.removal.persons) == ("g", "ann", 1, 0)
    files = await asyncio.to_thread(all_bytes, tmp_path)
    assert not any(piece in files for piece in pieces("brief"))
    assert await gallery.erase_expired() == []
    await gallery.close()
    assert audit(tmp_path).findings == ()


async def test_a_folder_of_the_first_schema_is_carried_over(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)
    migrate(connection, MIGRATIONS[:1])
    connection.execute("INSERT INTO meta (key, value) VALUES ('space_id', ?), ('dimension', ?)", (SPACE, DIMENSION))
    connection.execute("UPDATE meta SET value = 2 WHERE key = 'revision'")
    connection.execute("INSERT INTO galleries (name, persons, faces, revision) VALUES ('g', 2, 2, 2)")
    for key, name in ((1, "Ann"), (2, None)):
        connection.execute(
            "INSERT INTO persons (gallery_key, person_id, name, metadata, created_at_us) VALUES (1, ?, ?, ?, 5)",
            (f"p{key}", name, f'{{"n": {key}}}'),
        )
        connection.execute("INSERT INTO embeddings (vector) VALUES (?)", (embedding(f"f{key}").tobytes(),))
        connection.execute(
            "INSERT INTO faces (face_key, person_key, gallery_key, face_id, quality, crop_digest, created_at_us, "
            "revision) VALUES (?, ?, 1, ?, 'null', '', 5, ?)",
            (key, key, f"f{key}", key),
        )
    connection.close()
    gallery = EmbeddedGallery.open(tmp_path, space_id=SPACE, dimension=DIMENSION)
    persons = await gallery.persons("g", after=None, limit=10)
    assert [(each.person_id, each.name, each.metadata) for each in persons] == [
        ("p1", "Ann", {"n": 1}),
        ("p2", None, {"n": 2}),
    ]
    assert (await gallery.summary("g")).settings == GallerySettings()
    (result,) = await gallery.search("g", embedding("f2")[np.newaxis], 1)
    assert (result.matches[0].person_id, result.gallery_size) == ("p2", 2)
    await gallery.close()
    assert audit(tmp_path).findings == ()
