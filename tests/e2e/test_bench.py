"""`shrinkface bench` on a folder that is laid out like LFW: two portraits, each changed a little."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.demo import VERSIONS, load_portraits
from service.settings import Settings

PAIRS = "2\t1\neileen\t1\t2\neileen\t1\tgrace\t1\ngrace\t2\t1\ngrace\t2\teileen\t3\n"


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people of three pictures, one double of the first, ten of the second; and the pairs file."""
    root = tmp_path_factory.mktemp("lfw")
    makers = list(VERSIONS.values())[:3]
    for portrait, name, doubles in zip(load_portraits(), ("eileen", "grace"), (1, 10), strict=True):
        for label, pictures in ((name, makers), *((f"{name}_{number}", makers[:1]) for number in range(doubles))):
            (root / "pictures" / label).mkdir(parents=True)
            for number, make in enumerate(pictures, 1):
                (root / "pictures" / label / f"{label}_{number:04d}.jpg").write_bytes(make(portrait.pixels))
    (root / "pairs.txt").write_text(PAIRS)
    return root


def bench(*arguments: object, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_training.bench", *map(str, arguments)]
    # So wide that no path, however long, is broken into two lines.
    environment = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)


def test_verification(lfw: Path) -> None:
    ended = bench("verification", "--lfw-dir", lfw / "pictures", "--pairs", lfw / "pairs.txt", "--json")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["accuracy_percent"] == 100.0
    assert (figures["pairs"], figures["pictures"], figures["pictures_without_face"]) == (4, 5, 0)


def test_open_set_counts_strangers_and_mates(lfw: Path) -> None:
    """One of thirteen people is enrolled: with 1 of 12 strangers, or with 10 of 12, as a double."""
    names = sorted(folder.name for folder in (lfw / "pictures").iterdir())
    (lfw / "everybody.txt").write_text(f"1\t{len(names)}\n" + "".join(f"{name}\t1\tgrace\t1\n" for name in names))
    ended = bench(
        "open-set", "--lfw-dir", lfw / "pictures", "--pairs", lfw / "everybody.txt", "--sizes", "1",
        "--rates", "0.01,0.001", "--trials", "200", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    figure, refused = json.loads(ended.stdout)
    expected = (2 / 13) * (1 / 12) + (11 / 13) * (10 / 12)
    assert figure["observed"] == pytest.approx(expected, abs=0.1)
    assert (figure["strangers"], figure["different_strangers"]) == (12, 13)
    # The two who have other pictures were never missed.
    assert figure["missed"] == 0.0
    assert refused["refused"] == "2,400 probes of strangers cannot support an FPIR of 0.001: it needs 10,000"


def test_identification_of_a_portrait_among_real_and_drawn_distractors(lfw: Path, tmp_path: Path) -> None:
    """Grace is looked for among the first picture of Eileen, whom the list does not name; doubles are strangers."""
    names = sorted(folder.name for folder in (lfw / "pictures").iterdir() if folder.name != "eileen")
    (lfw / "looked_for.txt").write_text(f"1\t{len(names)}\n" + "".join(f"{name}\t1\tgrace\t1\n" for name in names))
    arguments = [
        "identification",
        "--lfw-dir",
        lfw / "pictures",
        "--pairs",
        lfw / "looked_for.txt",
        "--distractors",
        10,
    ]
    refused = bench(*arguments)
    assert refused.returncode == 2
    assert "11 strangers cannot support an FPIR of 0.01" in " ".join(refused.stderr.split())
    ended = bench(*arguments, "--fpir", "0.95", "--plot", tmp_path / "plot.svg", "--json")
    assert ended.returncode == 0, ended.stderr
    real, drawn = json.loads(ended.stdout)["student"]
    assert (real["distractors"], real["kind"], real["rank_one"]) == (1, "pictures", 1.0)
    assert (drawn["distractors"], drawn["kind"]) == (10, "smoothed")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_tradeoff_of_two_networks(lfw: Path, tmp_path: Path) -> None:
    shipped = Settings().embedder_path
    # The same weights without a manifest, so that their preprocessing must be said.
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(shipped.read_bytes())
    ended = bench(
        "tradeoff", shipped, f"{copy}@127.5,0.0078125", "--lfw-dir", lfw / "pictures", "--pairs", lfw / "pairs.txt",
        "--rounds", "1", "--plot", tmp_path / "plot.svg", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    student, same = json.loads(ended.stdout)
    assert (student["name"], same["name"]) == ("student", "copy")
    assert student["accuracy"] == same["accuracy"] == 1.0
    assert student["megabytes"] == same["megabytes"] == shipped.stat().st_size / 1e6
    assert 0.3 < student["face_ms"] / same["face_ms"] < 3
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_a_network_without_manifest_or_preprocessing_is_refused(lfw: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Settings().embedder_path.read_bytes())
    for described, said in ((copy, "no manifest"), (f"{copy}@grey", "raw, arcface or MEAN,SCALE")):
        ended = bench(
            "verification", "--lfw-dir", lfw / "pictures", "--pairs", lfw / "pairs.txt", "--embedder", described
        )
        assert ended.returncode == 2
        assert said in " ".join(ended.stderr.replace("│", " ").split())


def test_speed_compares_networks_in_turns() -> None:
    shipped = Settings().embedder_path
    ended = bench("speed", shipped, shipped, "--rounds", "1", environment={"COLUMNS": "120"})
    assert ended.returncode == 0, ended.stderr
    rows = [line.split("│") for line in ended.stdout.splitlines() if "student.onnx" in line]
    assert [(row[3].strip(), row[4].strip()) for row in rows] == [("1", "1"), ("1", "1"), ("2", "8"), ("2", "8")]
    assert [float(row[6]) for row in rows][::2] == [1.0, 1.0]
    # The same network twice.
    assert all(0.3 < float(row[6]) < 3 for row in rows)


def test_a_picture_that_is_missing_is_named(lfw: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1\t1\neileen\t1\t9\neileen\t1\tgrace\t1\n")
    ended = bench("verification", "--lfw-dir", lfw / "pictures", "--pairs", tmp_path / "pairs.txt")
    assert ended.returncode == 2
    assert "eileen_0009.jpg" in ended.stderr


def test_a_file_that_is_no_picture_is_named(lfw: Path, tmp_path: Path) -> None:
    for name in ("grace", "eileen"):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            (tmp_path / name / f"{name}_{number:04d}.jpg").write_text("no picture")
    for command in ("verification", "identification", "open-set"):
        ended = bench(command, "--lfw-dir", tmp_path, "--pairs", lfw / "pairs.txt")
        assert ended.returncode == 2
        assert "_0001.jpg: the content is not" in " ".join(ended.stderr.replace("│", " ").split())


def test_thresholds_rise_with_the_gallery_and_fall_with_the_rate(tmp_path: Path) -> None:
    ended = bench("thresholds", "--plot", tmp_path / "plot.svg", environment={"COLUMNS": "120"})
    assert ended.returncode == 0, ended.stderr
    rows = [re.findall(r"[\d.,]+", line) for line in ended.stdout.splitlines() if re.search(r"\d\.\d{3}", line)]
    cosines = np.array([[float(value) for value in row[1:]] for row in rows])
    assert cosines.shape == (7, 3)
    assert (np.diff(cosines, axis=0) > 0).all()
    assert (np.diff(cosines, axis=1) < 0).all()
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_templates_of_portraits(lfw: Path, tmp_path: Path) -> None:
    """Grace in the gallery and as a probe, then Eileen as well; boxes as NIST gives them."""
    pictures = lfw / "pictures"
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT\n"
    files = {
        "ijbb_1N_gallery_S1.csv": head + "1,1,grace/grace_0001.jpg,1,,,,\n1,1,grace/grace_0002.jpg,2,,,,\n",
        "ijbb_1N_gallery_S2.csv": head + "2,2,eileen/eileen_0001.jpg,3,0,0,100000,100000\n",
        "ijbb_1N_probe_mixed.csv": head + "3,1,grace/grace_0003.jpg,4,,,,\n",
        "ijbb_11_S1_S2_matches.csv": "1,3\n2,3\n",
    }
    (tmp_path / "protocols").mkdir()
    for name, text in files.items():
        (tmp_path / "protocols" / name).write_text(text)
    (tmp_path / "images").symlink_to(pictures)
    ended = bench("templates", "--dir", tmp_path, "--benchmark", "ijbb", "--packing", "nist", "--json")
    assert ended.returncode == 2
    # Nobody in the second gallery is looked for.
    assert "no probe is of anybody in the gallery" in " ".join(ended.stderr.replace("│", " ").split())
    with (tmp_path / "protocols" / "ijbb_1N_probe_mixed.csv").open("a") as stream:
        stream.write("4,2,eileen/eileen_0003.jpg,5,,,,\n")
    ended = bench("templates", "--dir", tmp_path, "--benchmark", "ijbb", "--packing", "nist", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["student"]
    assert found["missed"] == 0
    assert (found["verification"]["mates"], found["verification"]["impostors"]) == (1, 1)
    for gallery in ("S1", "S2"):
        assert found["search"][gallery]["cmc"][0] == 1.0
        assert (found["search"][gallery]["mated"], found["search"][gallery]["strangers"]) == (1, 1)


def test_detection_of_small_and_tilted_faces(lfw: Path) -> None:
    """The shipped detector's own network is the teacher: what it sees at its size is found."""
    models = Settings().detector_path.parent
    ended = bench(
        "detection", "--lfw-dir", lfw / "pictures", "--teacher", models / "detector.onnx", "--pictures", "6",
        "--tilted", "2", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["as_they_are"]["found"] == figures["as_they_are"]["of"] >= 6
    assert figures["shrunk"]["of"] == 6 == sum(band["of"] for band in figures["bands"].values())
    assert figures["shrunk"]["found"] >= 5
    upright, tilted = (figures["tilts"][degrees] for degrees in ("0", "30"))
    assert upright["found"] == upright["of"] == tilted["found"] == tilted["of"] == 2
    assert upright["mean_cosine"] > 0.9
    assert tilted["mean_cosine"] > 0.75
