"""Starts of students: fewer channels, and what was exported before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model_training.backbones.units import fold_batch_norms, set_slope_factor
from model_training.shipping.export import export_onnx
from model_training.training.exported import ExportError, load_exported
from model_training.training.narrowing import narrow
from service.vision.runtime import onnxruntime
from tests.unit.model_training.common import TINY, random_network, random_pixels

NARROW = replace(
    TINY, stem_channels=3, channels=(3, 5, 6), expansions=(6, 9, 15), transition_expansions=(5, 9, 14), head_channels=9
)


@pytest.fixture
def network():
    return fold_batch_norms(random_network(TINY)).eval()


class TestNarrowing:
    def test_as_wide_as_before_it_is_the_same_network(self, network):
        pixels = random_pixels(4)
        with torch.no_grad():
            assert torch.allclose(narrow(network, TINY, pixels)(pixels), network(pixels), atol=1e-5)

    def test_the_copy_has_the_shape_and_is_nearer_than_chance(self, network):
        pixels = random_pixels(16)
        small = narrow(network, NARROW, pixels)
        assert small.shape == NARROW
        assert small.stem.conv.weight.shape[0] == 3 and small.fc.weight.shape == (8, 9)
        with torch.no_grad():
            expected = network(pixels)
            ours = torch.nn.functional.cosine_similarity(small(pixels), expected).mean()
        assert ours > 0.7

    def test_a_channel_that_never_varies_costs_nothing(self, network):
        """Its average moves into the readers' biases: dropping it changes no output."""
        with torch.no_grad():
            network.head.conv.weight[5] = 0
            network.head.conv.bias[5] = 3.0
        pixels = random_pixels(6)
        small = narrow(network, replace(TINY, head_channels=11), pixels)
        with torch.no_grad():
            assert torch.allclose(small(pixels), network(pixels), atol=1e-4)

    @pytest.mark.parametrize("changes", [{"head_channels": 13}, {"blocks": (0, 1, 0)}, {"channels": (4, 7, 8)}])
    def test_deeper_shallower_or_wider_is_refused(self, network, changes):
        with pytest.raises(ValueError, match="cannot"):
            narrow(network, replace(TINY, **changes), random_pixels(2))


class TestExported:
    @pytest.mark.parametrize("shape", [TINY, NARROW], ids=["tiny", "narrow"])
    def test_what_was_exported_is_read_back(self, tmp_path, shape):
        network = random_network(shape)
        set_slope_factor(network, 0.0)
        export_onnx(network, tmp_path / "student.onnx")
        again = load_exported(tmp_path / "student.onnx")
        assert again.shape == replace(shape, expansions=(*shape.expansions[:2], shape.transition_expansions[2]))
        pixels = random_pixels(3)
        session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"), providers=["CPUExecutionProvider"])
        expected = session.run(None, {"input": pixels.numpy()})[0]
        with torch.no_grad():
            assert np.allclose(again(pixels).numpy(), expected, atol=1e-4)

    def test_prelu_is_refused(self, tmp_path):
        export_onnx(random_network(TINY), tmp_path / "student.onnx")
        with pytest.raises(ExportError):
            load_exported(tmp_path / "student.onnx")

    def test_something_else_is_refused(self, tmp_path):
        (tmp_path / "student.onnx").write_bytes(b"no network")
        with pytest.raises(ExportError):
            load_exported(tmp_path / "student.onnx")
