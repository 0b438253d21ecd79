"""Teachers of any make: how they want their pixels, several as one, and what an ONNX network shows of its inside."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from model_training.backbones.catalogue import make_backbone
from model_training.backbones.units import fold_batch_norms
from model_training.objectives.stage_matching import StageMatching
from model_training.shipping.export import export_onnx
from model_training.teachers.description import DescriptionError, TeacherDescription
from model_training.teachers.ensemble import EnsembleTeacher
from model_training.teachers.networks import RAW_PIXELS, OnnxTeacher, PixelFormat
from model_training.teachers.onnx_backbone import OnnxBackbone, StageError
from service.contract import normalise_embeddings
from tests.unit.model_training.common import TINY, MeanColours, random_network, random_pixels

CROPS = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)


def mean_network(path, batch="n"):
    """A network whose embedding is the mean of each channel, as it reads them."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
        ],
        "means",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info("means", TensorProto.FLOAT, [batch, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


class TestPixels:
    BGR = CROPS.mean(axis=(1, 2))

    @pytest.mark.parametrize(
        ("pixels", "wanted"),
        [
            (RAW_PIXELS, BGR[:, ::-1]),
            (PixelFormat(), (BGR[:, ::-1] - 127.5) / 128),
            (PixelFormat(100.0, 0.5, "BGR"), (BGR - 100) * 0.5),
        ],
        ids=["raw", "contract", "BGR"],
    )
    def test_a_network_reads_them_as_it_wants_them(self, tmp_path, pixels, wanted):
        teacher = OnnxTeacher(mean_network(tmp_path / "a.onnx"), pixels)
        assert (teacher.name, teacher.dimension) == ("a.onnx", 3)
        np.testing.assert_allclose(teacher.embed(CROPS), wanted, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("batch", [1, 2, 8])
    def test_a_network_for_a_fixed_number_of_faces_labels_any_number(self, tmp_path, batch):
        teacher = OnnxTeacher(mean_network(tmp_path / "a.onnx", batch), RAW_PIXELS)
        np.testing.assert_allclose(teacher.embed(CROPS), self.BGR[:, ::-1], rtol=1e-4)


class Dots(MeanColours):
    """Another teacher: three values of single pixels."""

    dimension = 3

    def embed(self, crops):
        return crops[:, 50, 60].astype(np.float32) + 1


def cosines(teacher):
    unit = normalise_embeddings(teacher.embed(CROPS))
    return unit @ unit.T


class TestEnsemble:
    def test_concatenated_cosines_are_the_weighted_mean_of_the_members(self):
        first, second = MeanColours("first"), Dots("second")
        ensemble = EnsembleTeacher([first, second], "concatenate", [3.0, 1.0])
        assert ensemble.dimension == 11
        assert ensemble.name == "concatenate of 3 x first, 1 x second"
        np.testing.assert_allclose(cosines(ensemble), 0.75 * cosines(first) + 0.25 * cosines(second), atol=1e-5)

    def test_averaged_embeddings_are_the_mean_of_unit_ones(self):
        class Other(MeanColours):
            def embed(self, crops):
                return super().embed(crops[:, ::-1]) * 9

        first, second = MeanColours("first"), Other("second")
        got = EnsembleTeacher([first, second], "average").embed(CROPS)
        wanted = (normalise_embeddings(first.embed(CROPS)) + normalise_embeddings(second.embed(CROPS))) / 2
        np.testing.assert_allclose(got, wanted, atol=1e-6)

    @pytest.mark.parametrize(
        ("members", "combine", "weights", "message"),
        [
            ([], "average", [], "0 members"),
            ([MeanColours()], "average", [1.0, 2.0], "1 members, but 2 weights"),
            ([MeanColours(), Dots()], "average", [], "no mean"),
            ([MeanColours(), Dots()], "concatenate", [1.0, 0.0], "positive"),
        ],
    )
    def test_what_makes_no_ensemble_is_refused(self, members, combine, weights, message):
        with pytest.raises(ValueError, match=message):
            EnsembleTeacher(members, combine, weights)


class TestDescription:
    def write(self, folder, text):
        (folder / "teacher.toml").write_text(text)
        return TeacherDescription.read(folder / "teacher.toml")

    def test_members_are_sought_beside_it_and_read_pixels_in_their_own_way(self, tmp_path):
        mean_network(tmp_path / "means.onnx")
        torch.manual_seed(0)
        network = make_backbone("mobilenetv2", 8).eval()
        torch.save(network.state_dict(), tmp_path / "own.pt")
        described = self.write(
            tmp_path,
            '[[member]]\nonnx = "means.onnx"\nmean = 0.0\nscale = 1.0\ncolour_order = "BGR"\n'
            '[[member]]\nbackbone = "mobilenetv2"\nweights = "own.pt"\ndimension = 8\nshare = 3.0\n'
            "compile = false\n",
        )
        teacher = described.teacher()
        assert teacher.name == "concatenate of 1 x means.onnx, 3 x own"
        got = teacher.embed(CROPS)
        np.testing.assert_allclose(got[:, :3], 0.5 * normalise_embeddings(CROPS.mean(axis=(1, 2))), rtol=1e-3)
        pixels = (CROPS[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128
        with torch.no_grad():
            own = normalise_embeddings(network(torch.from_numpy(pixels)).numpy())
        similar = (normalise_embeddings(got[:, 3:]) * own).sum(axis=1)
        assert similar.min() > 0.99
        with pytest.raises(DescriptionError, match="stages of an ensemble"):
            described.backbone()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "member"),
            ("[[member]]\n", "a member has"),
            ('[[member]]\nonnx = "a.onnx"\nlayers = "b.json"\n', "a member has"),
            ('[[member]]\nbackbone = "iresnet50"\n', "a member has"),
            ('[[member]]\nonnx = "a.onnx"\nscale = 0.0\n', "scale"),
            ("[[member]\n", "describes no teacher"),
        ],
    )
    def test_a_file_that_describes_none_is_refused(self, tmp_path, text, message):
        with pytest.raises(DescriptionError, match=message):
            self.write(tmp_path, text)

    def test_weights_of_another_network_are_refused(self, tmp_path):
        torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "own.pt")
        described = self.write(tmp_path, '[[member]]\nbackbone = "mobilenetv2"\nweights = "own.pt"\n')
        with pytest.raises(DescriptionError, match=r"own\.pt is no mobilenetv2"):
            described.teacher()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network in PyTorch, without BatchNorms, and as ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    network = fold_batch_norms(random_network(TINY)).eval()
    export_onnx(network, path)
    return network, path


class TestStages:
    def test_maps_are_those_that_the_network_computes(self, exported):
        network, path = exported
        shown = OnnxBackbone(path, PixelFormat())
        assert shown.dimension == 8
        # The third stage of this one has no residual block: its last value is the head's.
        assert [(stage.channels, stage.stride) for stage in shown.feature_stages()][1:3] == [(4, 4), (6, 8)]
        pixels = random_pixels(3)
        embedding, maps = shown.forward_features(pixels)
        with torch.no_grad():
            wanted, wanted_maps = network.forward_features(pixels)
        torch.testing.assert_close(embedding, wanted, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(maps[1], wanted_maps[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(maps[2], wanted_maps[1], rtol=1e-3, atol=1e-4)

    def test_values_may_be_named(self, exported):
        path = exported[1]
        name = OnnxBackbone(path, PixelFormat()).feature_stages()[2].name
        named = OnnxBackbone(path, PixelFormat(), [name])
        assert [stage.name for stage in named.feature_stages()] == [name]
        with pytest.raises(StageError, match="no square map is named nothing"):
            OnnxBackbone(path, PixelFormat(), ["nothing"])

    def test_a_network_without_maps_is_refused(self, tmp_path):
        with pytest.raises(StageError, match="has no maps"):
            OnnxBackbone(mean_network(tmp_path / "a.onnx"), PixelFormat())

    def test_pixels_reach_it_as_it_wants_them(self, exported, tmp_path):
        graph = helper.make_graph(
            [
                helper.make_node("AveragePool", ["pixels"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
                helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["means"]),
            ],
            "means",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, "height", "width"])],
            [helper.make_tensor_value_info("means", TensorProto.FLOAT, [1, 3])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, str(tmp_path / "a.onnx"))
        shown = OnnxBackbone(tmp_path / "a.onnx", PixelFormat(0.0, 1.0, "BGR"))
        pixels = random_pixels(2)
        embedding, maps = shown.forward_features(pixels)
        wanted = (pixels * 128 + 127.5).flip(1)
        torch.testing.assert_close(embedding, wanted.mean(dim=(2, 3)), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(maps[0], torch.nn.functional.avg_pool2d(wanted, 4), rtol=1e-4, atol=1e-3)

    def test_a_students_stages_are_held_against_them(self, exported):
        path = exported[1]
        teacher, student = OnnxBackbone(path, PixelFormat()), random_network(TINY, seed=1)
        matching = StageMatching(student.feature_stages(), teacher.feature_stages(), [1.0, 1.0, 1.0])
        pixels = random_pixels(3)
        loss = matching(teacher.forward_features(pixels)[1], student.forward_features(pixels)[1])
        loss.backward()
        assert loss.item() > 0
        assert all(projection.weight.grad.abs().sum() > 0 for projection in matching.projections)
