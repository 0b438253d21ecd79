"""The shipped student in 16-bit floating point is half as large, and the service cannot tell its answers apart."""

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from model_training.cli import app
from model_training.data.alignment import Aligner, Alignment
from model_training.data.faces import AlignedFaces
from model_training.shipping import half_precision
from model_training.shipping.export import ParityError
from model_training.shipping.half_precision import halve
from service.contract import read_manifest
from service.demo import VERSIONS, load_portraits
from service.settings import Settings
from service.vision.embedding import OnnxNetwork

STUDENT = Settings().embedder_path


@pytest.fixture(scope="module")
def faces():
    """Each version of two people's portraits, aligned."""
    aligner = Aligner(Alignment(Settings().detector_path))
    crops, sources = [], []
    for portrait in load_portraits():
        for number, make in enumerate(VERSIONS.values()):
            crops.append(aligner.crop_of(make(portrait.pixels)))
            sources.append(f"{portrait.person_id}/{number}.jpg")
    return AlignedFaces(np.stack(crops), sources)


def test_the_service_gets_the_same_answers_from_half_the_bytes(faces, tmp_path):
    faces.save(tmp_path / "faces", range(len(faces.sources)))
    out = tmp_path / "student-float16.onnx"
    command = ["halve", "--faces", str(tmp_path / "faces"), "--out", str(out)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    manifest, original = read_manifest(out), read_manifest(STUDENT)
    assert manifest.name == f"{original.name}-float16"
    assert manifest.space_id != original.space_id
    assert manifest.size_bytes < 0.55 * original.size_bytes
    assert manifest.metrics == {}
    crops = np.asarray(faces.crops)
    cosines = (OnnxNetwork(out).embed(crops) * OnnxNetwork(STUDENT).embed(crops)).sum(axis=1)
    assert cosines.min() > 0.9999
    assert manifest.training["float16_least_cosine_to_float32"] == pytest.approx(float(cosines.min()), abs=1e-6)
    kinds = {tensor.data_type for tensor in onnx.load(str(out)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds


def test_a_model_that_answers_otherwise_is_not_kept(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(half_precision, "_LEAST_COSINE", 1.1)
    with pytest.raises(ParityError, match="16-bit embeddings"):
        halve(STUDENT, faces, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_faces_nothing_is_compared(tmp_path):
    with pytest.raises(ValueError, match="needs faces"):
        halve(STUDENT, AlignedFaces(np.zeros((0, 112, 112, 3), np.uint8), []), tmp_path / "out.onnx")
