"""Galleries in and out in bulk, through the commands that a person would type, on the shipped networks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.contract import read_manifest
from service.demo import jpeg, load_faceless, load_portraits
from service.gallery.audit import audit
from service.settings import Settings

SPACE = read_manifest(Settings().embedder_path).space_id
D = 128


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, " ".join(result.output.split())


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def unit_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def line(person_id: str, row: np.ndarray, **changes: object) -> dict:
    face = {"face_id": f"f-{person_id}", "embedding": base64.b64encode(row.tobytes()).decode()}
    return {"space_id": SPACE, "person_id": person_id, "faces": [face], **changes}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for portrait in load_portraits():
        (folder / portrait.person_id).mkdir(parents=True)
        for quality in (70, 95):
            (folder / portrait.person_id / f"{quality}.jpg").write_bytes(jpeg(portrait.pixels, quality))
    (folder / portrait.person_id / "house.jpg").write_bytes(jpeg(load_faceless()))
    (folder / "nobody").mkdir()
    (folder / "no face").mkdir()
    (folder / "no face" / "a.jpg").write_bytes(jpeg(load_faceless()))
    (folder / "torn").mkdir()
    (folder / "torn" / "a.jpg").write_bytes(jpeg(portrait.pixels)[:2_000])
    (folder / "stray.txt").write_text("not a person")
    return folder


def test_a_folder_of_pictures_becomes_a_gallery_and_comes_back(pictures: Path, tmp_path: Path) -> None:
    noted, data = tmp_path / "noted.ndjson", tmp_path / "data"
    code, output = run("import", pictures, "--data-dir", data, "--outcomes", noted)
    assert code == 1
    assert "4 faces stored, 0 there already, of 5 persons; 3 persons failed, 3 pictures skipped" in output
    outcomes = {each["item"]: each for each in lines_of(noted)[1:]}
    assert outcomes["folder nobody"]["problem"] == "invalid-request"
    assert outcomes["folder no face"]["problem"] == "no-face"
    assert outcomes["folder torn"]["problem"] == "image-damaged"
    assert outcomes["folder grace-hopper"]["skipped"][0] == {
        "picture": "house.jpg", "problem": "no-face", "detail": "picture 0 shows no face"
    }  # fmt: skip
    assert outcomes["folder eileen-collins"]["added"] == 2
    # Whoever is done is passed over; a fresh outcome file finds them in the gallery.
    assert "of 3 persons" in run("import", pictures, "--data-dir", data, "--outcomes", noted)[1]
    again = run("import", pictures, "--data-dir", data, "--outcomes", tmp_path / "other.ndjson")[1]
    assert "0 faces stored, 4 there already" in again

    first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
    assert run("export", first, "--data-dir", data) == (0, f"{first}: 2 persons, 4 faces")
    assert first.stat().st_mode & 0o077 == 0
    copy = tmp_path / "copy"
    code, output = run("import", first, "--data-dir", copy, "--gallery", "g2", "--outcomes", tmp_path / "o.ndjson")
    assert (code, "4 faces stored" in output) == (0, True)
    run("export", second, "--data-dir", copy, "--gallery", "g2")
    assert lines_of(first) == lines_of(second)
    assert lines_of(first)[0]["faces"][0]["quality"]["side_px"] > 50
    assert not audit(copy).findings


def test_bad_lines_are_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = unit_rows(9)
    picture = base64.b64encode(jpeg(load_portraits()[0].pixels)).decode()
    lines = [
        json.dumps(line("good", rows[0])),
        "{truncated",
        json.dumps(line("foreign", rows[1], space_id="sf1-other")),
        json.dumps(line("nowhere", rows[1], space_id=None)),
        json.dumps(line("short", rows[2][:-1])),
        json.dumps(line("nan", np.full(D, np.nan, np.float32))),
        json.dumps(line("zero", np.zeros(D, np.float32))),
        json.dumps(line("a/b", rows[3])),
        json.dumps(line("thief", rows[4], faces=line("good", rows[4])["faces"])),
        "",
        json.dumps(line("odd", rows[5], colour="red")),
        json.dumps(line("bare", rows[5], faces=None)),
        json.dumps({"person_id": "seen", "name": "Seen", "images": [picture, "%%%"]}),
        json.dumps(line("numbers", rows[6], faces=[{"face_id": "n", "embedding": rows[6].tolist()}])),
        json.dumps(line("last", rows[7]))[:-9],
    ]
    source, noted = tmp_path / "lines.ndjson", tmp_path / "noted.ndjson"
    source.write_text("\n".join(lines))
    code, output = run("import", source, "--data-dir", tmp_path / "data", "--outcomes", noted)
    assert code == 1
    assert "3 faces stored, 0 there already, of 14 persons; 11 persons failed, 1 pictures skipped" in output
    problems = {each["item"]: each.get("problem") for each in lines_of(noted)[1:]}
    assert {item for item, problem in problems.items() if problem is None} == {"line 1", "line 13", "line 14"}
    assert problems["line 3"] == problems["line 4"] == "space-mismatch"
    assert problems["line 5"] == problems["line 6"] == problems["line 7"] == "embedding-invalid"
    assert "line 10" not in problems
    code, output = run("import", source, "--data-dir", tmp_path / "data", "--outcomes", noted, "--gallery", "a/b")
    assert (code, "belongs to another import" in output) == (1, True)
    code, output = run(
        "import", source, "--data-dir", tmp_path / "data", "--outcomes", tmp_path / "x", "--gallery", "a/b"
    )
    assert (code, "a gallery name is" in output) == (1, True)


def test_an_array_of_embeddings_with_ids(tmp_path: Path) -> None:
    rows = unit_rows(300)
    rows[7] *= 1.1
    np.save(tmp_path / "rows.npy", rows)
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"p{row // 2}\n" for row in range(300)))
    arguments = ("import", tmp_path / "rows.npy", "--ids", ids, "--data-dir", tmp_path / "data", "--outcomes")
    code, output = run(*arguments, tmp_path / "noted")
    assert code == 1
    assert "299 faces stored, 0 there already, of 300 persons; 1 persons failed" in output
    assert "0 faces stored, 299 there already" in run(*arguments, tmp_path / "again")[1]
    found = audit(tmp_path / "data")
    assert (found.persons, found.faces, found.findings) == (150, 299, ())
    ids.write_text("only one\n")
    assert "there are 1 ids for 300 embeddings" in run(*arguments, tmp_path / "third")[1]
    for wrong, said in ((tmp_path / "absent", "there is no file"), (tmp_path / "rows.npy", "needs a file of person")):
        code, output = run("import", wrong, "--data-dir", tmp_path / "data", "--outcomes", tmp_path / "fourth")
        assert (code, said in output) == (1, True)


def test_an_import_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    count = 30_000
    rows, source, noted = unit_rows(count), tmp_path / "lines.ndjson", tmp_path / "noted.ndjson"
    with source.open("w") as stream:
        for number, row in enumerate(rows):
            stream.write(json.dumps(line(f"p{number}", row)) + "\n")
    command = [sys.executable, "-m", "service.cli", "import", str(source), "--outcomes", str(noted), "--data-dir"]
    importing = subprocess.Popen(
        [*command, str(tmp_path / "data")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not noted.exists() or noted.stat().st_size < 200_000):
        time.sleep(0.01)
    importing.send_signal(signal.SIGKILL)
    assert importing.wait() == -signal.SIGKILL
    # What a kill in the middle of a line leaves.
    with noted.open("a") as stream:
        stream.write('{"item": "line 2')
    done = len(noted.read_text().splitlines()) - 2
    assert 0 < done < count
    code, output = run("import", source, "--data-dir", tmp_path / "data", "--outcomes", noted)
    assert code == 0
    assert f"of {count - done:,} persons" in output
    assert len({each["item"] for each in lines_of(noted)[1:]}) == count
    found = audit(tmp_path / "data")
    assert (found.faces, found.snapshots, found.findings) == (count, 1, ())
    shutil.rmtree(tmp_path / "data")
