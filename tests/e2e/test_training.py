"""The way from pictures to a network that the service accepts, by the commands of docs/training.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_training.cli import app
from service.contract import read_manifest
from service.demo import VERSIONS, load_portraits
from service.settings import Settings
from service.vision.embedding import OnnxNetwork

RECIPE = """
name = "smallest"
blocks = [0, 0, 0]
epochs = 6
batch = 4
warmup_steps = 1
checkpoint_every = 2
identity = "cosface"
compile = false
"""
ABOUT = {"teacher": "the shipped student", "data": ["two portraits"], "licence": "Apache-2.0"}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for portrait in load_portraits():
        (folder / portrait.person_id).mkdir()
        for number, make in enumerate(VERSIONS.values()):
            (folder / portrait.person_id / f"{number}.jpg").write_bytes(make(portrait.pixels))
    return folder


def test_from_pictures_to_a_model_with_card(pictures: Path, tmp_path: Path) -> None:
    recipe, about = tmp_path / "recipe.toml", tmp_path / "about.json"
    recipe.write_text(RECIPE)
    about.write_text(json.dumps(ABOUT))
    shipped = Settings()
    faces, bank, runs, model = (
        tmp_path / "faces",
        tmp_path / "bank",
        tmp_path / "run",
        tmp_path / "out" / "student.onnx",
    )
    model.parent.mkdir()
    assert "10 faces" in run("prepare", "--source", pictures, "--out", faces, "--detector", shipped.detector_path)
    teacher = tmp_path / "teacher.toml"
    teacher.write_text(f'[[member]]\nonnx = "{shipped.embedder_path}"\n')
    run(
        "label", "--faces", faces, "--identities", faces, "--out", bank, "--teacher", teacher, "--views-per-face", "2",
    )  # fmt: skip
    run("distil", "--recipe", recipe, "--bank", bank, "--run", runs)
    run(
        "export", "--recipe", recipe, "--run", runs, "--impostor-faces", faces, "--description", about, "--out", model,
    )  # fmt: skip
    manifest = read_manifest(model)
    assert (manifest.name, manifest.dimension, manifest.teacher) == ("smallest", 128, "the shipped student")
    # Ten pictures of two people: 25 pairs of different ones, and 20 of the same.
    assert manifest.impostor_scores is not None and manifest.mate_scores is not None
    assert (manifest.impostor_scores.comparisons, manifest.mate_scores.comparisons) == (25, 20)
    crops = np.load(faces / "crops.npy")
    assert OnnxNetwork(model).embed(crops).shape == (10, 128)
    assert "smallest" in (model.parent / "MODEL_CARD.md").read_text()

    shutil.copytree(faces, tmp_path / "fewer")
    np.save(tmp_path / "fewer" / "crops.npy", crops[:7])
    (tmp_path / "fewer" / "sources.json").write_text(json.dumps(["a/1"] * 3 + ["b/1"] * 4))
    run("calibrate", "--impostor-faces", tmp_path / "fewer", "--model", model)
    calibrated = read_manifest(model)
    assert calibrated.impostor_scores is not None
    assert calibrated.impostor_scores.comparisons == 12
    assert calibrated.space_id == manifest.space_id

    small = model.parent / "student-int8.onnx"
    assert "mean cosine" in run("quantise", "--faces", faces, "--model", model, "--out", small)
    quantised = read_manifest(small)
    assert quantised.name == "smallest-int8"
    assert quantised.space_id != manifest.space_id
    # The head stays in floating point: 128 to 512 channels, 49 places of each, 512 to 128 values.
    head_bytes = 4 * 512 * (128 + 49 + 128)
    assert quantised.size_bytes - head_bytes < 0.5 * (manifest.size_bytes - head_bytes)
    cosines = (OnnxNetwork(small).embed(crops) * OnnxNetwork(model).embed(crops)).sum(axis=1)
    assert cosines.mean() > 0.98

    staged = tmp_path / "staged.toml"
    staged.write_text(RECIPE.replace("epochs = 6", "epochs = 1\nstage_weights = [0.1, 0.1, 0.1]"))
    run("distil", "--recipe", staged, "--bank", bank, "--run", tmp_path / "staged", "--teacher", teacher)
    assert (tmp_path / "staged" / "checkpoint.pt").exists()


def test_the_summary_lists_networks() -> None:
    shown = run("summary", "mobilefacenet", "mobilenetv2")
    assert "1,069,184" in shown and "2,149,312" in shown
    assert CliRunner().invoke(app, ["summary", "resnet"]).exit_code == 2


def test_faces_of_persons_must_be_faces(tmp_path: Path) -> None:
    arguments = ["label", "--faces", "a", "--identities", "b", "--out", str(tmp_path), "--teacher-onnx", "t.onnx"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "none of --faces" in result.output.replace("\n", " ")
