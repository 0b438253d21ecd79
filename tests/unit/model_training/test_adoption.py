"""A network of others, with PReLU, becomes one that the service loads and that computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model_training.backbones.units import set_slope_factor
from model_training.cli import app
from model_training.shipping.adoption import adopt
from model_training.shipping.export import ParityError, export_onnx
from service.contract import ContractError, Preprocessing, read_manifest, to_network_input
from service.vision.embedding import OnnxNetwork
from service.vision.runtime import onnxruntime
from tests.unit.model_training.common import TINY, random_network

RAW = Preprocessing(mean=0.0, scale=1.0)
MODELS = Path(__file__).parents[3] / "service" / "models"
# Coarse patterns, since fine ones look alike to a network of random weights.
CROPS = np.random.default_rng(3).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8).repeat(28, 1).repeat(28, 2)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    student = random_network(TINY)
    set_slope_factor(student, 1.0)
    export_onnx(student, path)
    return path


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def test_prelu_is_written_in_parts_and_nothing_else_changes(foreign: Path, tmp_path: Path) -> None:
    assert kinds(foreign).count("PRelu") > 2
    out = tmp_path / "adopted.onnx"
    dimension, cosine = adopt(foreign, RAW, out)
    assert kinds(out).count("PRelu") == 0
    assert kinds(out).count("Conv") == kinds(foreign).count("Conv") + 2 * kinds(foreign).count("PRelu")
    assert cosine >= 0.99999
    before, after = (onnxruntime.InferenceSession(str(path)) for path in (foreign, out))
    pixels = to_network_input(CROPS[:5], RAW)
    expected = before.run(None, {"input": pixels})[0]
    assert expected.shape == (5, dimension)
    np.testing.assert_allclose(after.run(None, {"input": pixels})[0], expected, rtol=1e-3, atol=1e-3)


def test_what_is_no_such_network_is_refused(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "adopted.onnx"
    with pytest.raises(ContractError, match="no network from"):
        adopt(MODELS / "detector.onnx", RAW, out)
    monkeypatch.setattr("model_training.shipping.adoption._LEAST_COSINE", 1.1)
    with pytest.raises(ParityError, match="cosine"):
        adopt(foreign, RAW, out)
    assert not out.exists()


def test_the_command_makes_what_the_service_loads(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    np.save(faces / "crops.npy", CROPS)
    (faces / "sources.json").write_text(json.dumps([f"p{number // 2}/{number}.jpg" for number in range(len(CROPS))]))
    out = tmp_path / "theirs.onnx"
    command = ["adopt", f"{MODELS / 'student.onnx'}@127.5,0.0078125", "--faces", str(faces), "--out", str(out)]
    run = CliRunner().invoke(app, [*command, "--licence", "MIT", "--origin", "drawings"])
    assert run.exit_code == 0, run.output
    manifest = read_manifest(out)
    assert (manifest.name, manifest.licence, manifest.data) == ("student", "MIT", ["drawings"])
    assert manifest.preprocessing == Preprocessing()
    assert manifest.impostor_scores is not None and manifest.impostor_scores.comparisons == 24 * 23 // 2 - 12
    network = OnnxNetwork(out)
    assert (network.embed(CROPS) * OnnxNetwork(MODELS / "student.onnx").embed(CROPS)).sum(axis=1).min() > 0.99999
    unsaid = CliRunner().invoke(
        app, ["adopt", "student.onnx", *command[2:], "--licence", "MIT", "--origin", "drawings"]
    )
    assert unsaid.exit_code == 2
    assert "preprocessing is raw" in unsaid.output
