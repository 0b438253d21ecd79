"""A tiny student through the whole way to what the service loads."""

import copy
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model_training.backbones.units import set_slope_factor
from model_training.data.faces import AlignedFaces
from model_training.shipping import export
from model_training.shipping.export import (
    ParityError,
    embed_faces,
    export_onnx,
    record_metrics,
    record_scores,
    write_manifest,
)
from service.contract import ContractError, ImpostorScores, MateScores, ModelManifest, read_manifest
from service.vision.embedding import OnnxNetwork
from tests.unit.model_training.common import TINY, random_network, random_pixels

CROPS = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
SCORES = ImpostorScores(mean=0.01, std=0.1, comparisons=10, source="ten drawings")


def describe(path, student):
    return write_manifest(
        path,
        name="tiny-student",
        student=student,
        teacher="a teacher of eight colours",
        data=["drawings", "more drawings"],
        licence="Apache-2.0",
        training={"steps": 15, "blocks": [1, 1, 0]},
        impostors=SCORES,
        metrics={"lfw_accuracy_percent": 98.7},
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder, student as trained, and the parity that the export reports."""
    folder = tmp_path_factory.mktemp("models")
    student = random_network(TINY)
    set_slope_factor(student, 0.0)
    trained = copy.deepcopy(student)
    parity = export_onnx(student, folder / "student.onnx")
    describe(folder / "student.onnx", student)
    return folder / "student.onnx", trained, parity


@pytest.fixture
def model(exported, tmp_path):
    """A copy that a test may change."""
    for name in ("student.onnx", "student.json"):
        (tmp_path / name).write_bytes((exported[0].parent / name).read_bytes())
    return tmp_path / "student.onnx"


class TestOnnx:
    def test_the_file_computes_what_the_trained_network_does(self, exported):
        path, trained, parity = exported
        pixels = random_pixels(7)
        with torch.no_grad():
            expected = trained.eval()(pixels).numpy()
        got = onnxruntime.InferenceSession(str(path)).run(None, {"input": pixels.numpy()})[0]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
        assert 0.99999 <= parity <= 1.000001

    def test_the_batch_is_dynamic_and_rows_are_independent(self, exported):
        session = onnxruntime.InferenceSession(str(exported[0]))
        pixels = random_pixels(17).numpy()
        together = session.run(["embedding"], {"input": pixels})[0]
        alone = np.concatenate([session.run(["embedding"], {"input": row[None]})[0] for row in pixels])
        assert together.shape == (17, 8)
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)

    def test_a_relu_student_ships_without_slopes_and_batch_norms(self, exported):
        kinds = {node.op_type for node in onnx.load(str(exported[0])).graph.node}
        assert "Relu" in kinds
        assert not kinds & {"PRelu", "BatchNormalization"}

    def test_nothing_of_the_exporting_machine_is_in_the_file(self, exported):
        data = exported[0].read_bytes()
        assert b"model_training" not in data
        assert b"site-packages" not in data
        assert not list(exported[0].parent.glob("*.data"))

    def test_a_file_that_computes_something_else_is_not_kept(self, exported, tmp_path, monkeypatch):
        class ProgramOfAnotherNetwork:
            def save(self, path):
                shutil.copy(exported[0], path)

        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: ProgramOfAnotherNetwork())
        with pytest.raises(ParityError):
            export_onnx(random_network(TINY, seed=9), tmp_path / "student.onnx")
        assert list(tmp_path.iterdir()) == []


class TestManifest:
    def test_the_service_loads_it_and_embeds_the_same(self, exported):
        path, trained, _ = exported
        network = OnnxNetwork(path)
        pixels = (CROPS[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128
        with torch.no_grad():
            expected = torch.nn.functional.normalize(trained.eval()(torch.from_numpy(pixels))).numpy()
        np.testing.assert_allclose(network.embed(CROPS), expected, atol=1e-4)
        assert network.dimension == 8
        assert network.space_id == read_manifest(path).space_id

    def test_it_states_the_file_as_it_is(self, exported):
        manifest = read_manifest(exported[0])
        assert manifest.size_bytes == exported[0].stat().st_size
        # The shipped network: BatchNorms are folded, each leaving one bias a channel.
        graph = onnx.load(str(exported[0])).graph
        assert sum(np.prod(tensor.dims) for tensor in graph.initializer) <= manifest.parameters
        assert manifest.impostor_scores == SCORES
        assert manifest.training == {"steps": 15, "blocks": [1, 1, 0]}

    def test_a_manifest_of_another_dimension_is_refused(self, model):
        fields = json.loads(model.with_suffix(".json").read_text())
        manifest = ModelManifest.model_validate(fields)
        wrong = export.space_id(manifest.sha256, manifest.preprocessing, 16)
        model.with_suffix(".json").write_text(json.dumps({**fields, "dimension": 16, "space_id": wrong}))
        with pytest.raises(ContractError, match="gives 8 dimensions"):
            OnnxNetwork(model)

    def test_recorded_figures_join_those_there_and_leave_the_space(self, model):
        before = read_manifest(model)
        record_metrics(model, {"faces_per_second": 1500})
        after = read_manifest(model)
        assert after.metrics == {"lfw_accuracy_percent": 98.7, "faces_per_second": 1500}
        assert after.model_copy(update={"metrics": before.metrics}) == before

    def test_scores_are_replaced_and_nothing_else(self, model):
        before = read_manifest(model)
        impostors = ImpostorScores(mean=0.02, std=0.2, comparisons=99, source="more drawings")
        record_scores(model, impostors, MateScores(mean=0.5, std=0.1, comparisons=7))
        after = read_manifest(model)
        assert after.impostor_scores == impostors
        assert after.mate_scores.comparisons == 7
        unchanged = {"impostor_scores": before.impostor_scores, "mate_scores": before.mate_scores}
        assert after.model_copy(update=unchanged) == before

    def test_prepared_faces_are_embedded_in_batches(self, exported):
        faces = AlignedFaces(CROPS, [str(i) for i in range(5)])
        np.testing.assert_allclose(
            embed_faces(exported[0], faces, batch=2), OnnxNetwork(exported[0]).embed(CROPS), atol=1e-5
        )
