"""Verifying a data folder and copying it, through the commands that a person would type."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.gallery.audit import MAX_FINDINGS, audit
from service.gallery.schema import DATABASE_FILE
from tests.unit.gallery.common import embedding, new_face, open_embedded


async def enrolled(folder: Path) -> None:
    gallery = open_embedded(folder)
    for person in range(6):
        faces = [new_face(f"{person}-{index}") for index in range(3)]
        await gallery.enrol(f"g{person % 2}", f"p{person}", "somebody", {}, faces)
    await gallery.forget_person("g0", "p0")
    await gallery.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(enrolled(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gallery", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_a_sound_folder_is_called_sound(folder: Path) -> None:
    code, output = run("verify", "--data-dir", folder)
    assert code == 0
    assert "2 galleries, 5 persons, 15 faces, revision 7" in output
    assert output.endswith("sound")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE galleries SET persons = persons + 1 WHERE name = 'g0'", "gallery g0 counts 3 persons and holds 2"),
        ("UPDATE galleries SET faces = 0 WHERE name = 'g1'", "gallery g1 counts 0 faces and holds 9"),
        ("UPDATE persons SET profile_key = NULL WHERE person_key = 3", "person number 3 has no profile"),
        ("UPDATE profiles SET name = 'x' WHERE profile_key = 1", "profile number 1 belongs to no person and is not"),
        ("INSERT INTO crops VALUES (1, x'01')", "crop number 1 belongs to no face and is not blank"),
        ("UPDATE faces SET gallery_key = 1 WHERE face_key = 4", "face number 4 lies in another gallery"),
        ("DELETE FROM embeddings WHERE face_key = 5", "face number 5 has no embedding"),
        ("DELETE FROM faces WHERE face_key = 5", "embedding number 5 belongs to no face and is not blank"),
        ("UPDATE faces SET revision = 99 WHERE face_key = 6", "face number 6 is of revision 99"),
        ("UPDATE galleries SET revision = 99", "gallery g0 is of revision 99"),
        (
            "UPDATE embeddings SET vector = zeroblob(256) WHERE face_key = 7",
            "face number 7 has an embedding that is not",
        ),
        ("UPDATE embeddings SET vector = x'00' WHERE face_key = 8", "face number 8 has an embedding of the wrong size"),
        ("DELETE FROM persons WHERE person_key = 2", "refers to a row of persons that does not exist"),
    ],
)
def test_each_kind_of_damage_is_named(folder: Path, damage: str, finding: str) -> None:
    with sqlite3.connect(folder / DATABASE_FILE) as connection:
        assert connection.execute(damage).rowcount > 0
    connection.close()
    code, output = run("verify", "--data-dir", folder)
    assert code == 1
    assert finding in output
    assert output.endswith("damaged")


def test_a_file_with_a_torn_page_is_found_out(folder: Path) -> None:
    path = folder / DATABASE_FILE
    content = bytearray(path.read_bytes())
    # Past the first page, which holds the schema.
    content[4096 * 3 : 4096 * 4] = b"\xa5" * 4096
    path.write_bytes(content)
    code, output = run("verify", "--data-dir", folder)
    assert code == 1
    assert "damaged" in output or "malformed" in output


def test_findings_are_bounded(folder: Path) -> None:
    asyncio.run(add_many(folder))
    with sqlite3.connect(folder / DATABASE_FILE) as connection:
        connection.execute("UPDATE embeddings SET vector = x'00'")
    connection.close()
    assert len(audit(folder).findings) == MAX_FINDINGS


async def add_many(folder: Path) -> None:
    gallery = open_embedded(folder)
    await gallery.enrol("g0", "many", None, {}, [new_face(f"m{index}") for index in range(2 * MAX_FINDINGS)])
    await gallery.close()


def test_what_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    for command in (["verify"], ["backup", tmp_path / "copy"]):
        code, output = run(*command, "--data-dir", tmp_path)
        assert code == 1
        assert "holds no gallery" in output
    (tmp_path / DATABASE_FILE).write_text("no database, by any means")
    code, _ = run("verify", "--data-dir", tmp_path)
    assert code == 1
    code, _ = run("backup", tmp_path / "copy", "--data-dir", tmp_path)
    assert code == 1
    assert not list((tmp_path / "copy").iterdir())


def test_a_backup_made_while_enrolments_go_on_is_whole(tmp_path: Path) -> None:
    asyncio.run(back_up_while_enrolling(tmp_path / "data", tmp_path / "copy"))
    found = audit(tmp_path / "copy")
    assert not found.findings
    assert found.faces == 2 * found.persons
    assert found.persons >= 50
    copy = tmp_path / "copy" / DATABASE_FILE
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    # Nothing of the erased, which the original holds in no row either, came along.
    assert embedding("erased").tobytes() not in copy.read_bytes()
    asyncio.run(check_served(tmp_path / "copy"))
    code, output = run("backup", tmp_path / "copy", "--data-dir", tmp_path / "data")
    assert code == 1
    assert "is not empty" in output


async def back_up_while_enrolling(folder: Path, target: Path) -> None:
    gallery = open_embedded(folder)

    async def enrol(index: int) -> None:
        await gallery.enrol("g", f"p{index}", None, {}, [new_face(f"{index}a"), new_face(f"{index}b")])

    await gallery.enrol("g", "gone", None, {}, [new_face("erased")])
    await gallery.forget_person("g", "gone")
    await asyncio.gather(*[enrol(index) for index in range(50)])
    running = asyncio.gather(*[enrol(index) for index in range(50, 400)])
    code, output = await asyncio.to_thread(run, "backup", target, "--data-dir", folder)
    assert code == 0, output
    await running
    await gallery.close()


async def check_served(folder: Path) -> None:
    gallery = open_embedded(folder)
    (found,) = await gallery.search("g", embedding("7b")[np.newaxis], 1)
    assert found.matches[0].person_id == "p7"
    await gallery.close()
