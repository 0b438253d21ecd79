"""The network: its published size, and the rewritings of it that must not change what it computes."""

import numpy as np
import pytest
import torch
from torch import nn

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import AnnealedPReLU, ConvUnit, fold_batch_norms, set_slope_factor
from tests.unit.model_training.common import TINY, random_network, random_pixels


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("blocks", "count"), [((4, 6, 2), 1_003_264), ((2, 3, 1), 687_872)])
def test_parameter_counts(blocks, count):
    assert parameters(MobileFaceNet(MobileFaceNetShape(blocks=blocks))) == count


def test_the_published_shape_is_the_default():
    assert MobileFaceNet().shape == MobileFaceNetShape(blocks=(4, 6, 2))


def test_feature_maps_are_as_declared():
    network = random_network(TINY)
    with torch.no_grad():
        embedding, maps = network.forward_features(random_pixels(2))
    assert embedding.shape == (2, 8)
    declared = network.feature_stages()
    assert [stage.name for stage in declared] == ["stage1", "stage2", "stage3"]
    for stage, feature_map in zip(declared, maps, strict=True):
        assert feature_map.shape == (2, stage.channels, 112 // stage.stride, 112 // stage.stride)


def test_residual_blocks_add_their_input():
    network = random_network(TINY)
    block = network.stages[0][1]
    with torch.no_grad():
        block.project.bn.weight.zero_()
        block.project.bn.bias.zero_()
        x = torch.randn(2, 4, 28, 28)
        torch.testing.assert_close(block(x), x)


class TestStridedDepthwise:
    @pytest.mark.parametrize("side", [8, 9])
    def test_training_computes_the_same_as_inference(self, side):
        torch.manual_seed(0)
        unit = ConvUnit(6, 6, 3, stride=2, groups=6)
        unit.bn = nn.Identity()
        x = torch.randn(2, 6, side, side)
        trained, evaluated = unit.train()(x), unit.eval()(x)
        assert trained.shape == (2, 6, (side + 1) // 2, (side + 1) // 2)
        torch.testing.assert_close(trained, evaluated)

    def test_the_gradients_agree_too(self):
        torch.manual_seed(0)
        unit, gradients = ConvUnit(6, 6, 3, stride=2, groups=6), []
        unit.bn = nn.Identity()
        for mode in (True, False):
            x = torch.linspace(-1, 1, 2 * 6 * 64).reshape(2, 6, 8, 8).requires_grad_()
            unit.zero_grad()
            unit.train(mode)(x).square().sum().backward()
            gradients.append((x.grad, unit.conv.weight.grad.clone()))
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


class TestFolding:
    @pytest.mark.parametrize("training", [True, False])
    def test_the_function_stays_the_same_and_no_batch_norm_is_left(self, training):
        network, pixels = random_network(TINY), random_pixels()
        with torch.no_grad():
            before = network(pixels)
            folded = fold_batch_norms(network.train(training))
            assert folded.training is training
            after = folded.eval()(pixels)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
        assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]

    def test_a_folded_network_computes_the_same_in_training(self):
        network = fold_batch_norms(random_network(TINY))
        with torch.no_grad():
            torch.testing.assert_close(network.train()(random_pixels()), network.eval()(random_pixels()))

    @pytest.mark.parametrize("frozen", [False, True])
    def test_its_biases_train_if_its_weights_do(self, frozen):
        folded = fold_batch_norms(random_network(TINY).requires_grad_(not frozen))
        biases = [parameter for name, parameter in folded.named_parameters() if name.endswith("bias")]
        assert len(biases) > 10
        assert all(bias.requires_grad is not frozen for bias in biases)

    def test_folding_twice_changes_nothing(self):
        network = fold_batch_norms(random_network(TINY))
        state = {name: value.clone() for name, value in network.state_dict().items()}
        again = fold_batch_norms(network).state_dict()
        assert again.keys() == state.keys()
        assert all(torch.equal(again[name], value) for name, value in state.items())


class TestSlopes:
    X = torch.tensor([[[[-2.0, 3.0]], [[-4.0, 0.0]]]])

    @pytest.fixture
    def activation(self):
        activation = AnnealedPReLU(2)
        with torch.no_grad():
            activation.weight.copy_(torch.tensor([0.5, -0.25]))
        return activation

    @pytest.mark.parametrize(
        ("factor", "expected"), [(1.0, [-1.0, 3.0, 1.0, 0.0]), (0.5, [-0.5, 3.0, 0.5, 0.0]), (0.0, [0, 3, 0, 0])]
    )
    def test_slopes_are_scaled_a_channel(self, activation, factor, expected):
        activation.set_slope_factor(factor)
        assert activation(self.X).flatten().tolist() == expected

    def test_at_zero_every_activation_is_exactly_relu(self):
        network, pixels = random_network(TINY), random_pixels()
        set_slope_factor(network, 0.0)
        with torch.no_grad():
            annealed = network(pixels)
        for module in network.modules():
            if isinstance(module, ConvUnit) and isinstance(module.act, AnnealedPReLU):
                module.act = nn.ReLU()
        with torch.no_grad():
            assert torch.equal(network(pixels), annealed)

    def test_a_factor_of_zero_can_be_taken_back(self):
        network, pixels = random_network(TINY), random_pixels()
        with torch.no_grad():
            before = network(pixels)
            set_slope_factor(network, 0.0)
            assert not torch.allclose(network(pixels), before)
            set_slope_factor(network, 1.0)
            assert torch.equal(network(pixels), before)

    def test_slopes_on_half_precision_maps(self, activation):
        assert activation(self.X.bfloat16()).dtype == torch.bfloat16

    @pytest.mark.parametrize("factor", [-0.1, 1.1, np.nan])
    def test_a_factor_out_of_range_is_refused(self, factor):
        with pytest.raises(ValueError, match="slope factor"):
            set_slope_factor(random_network(TINY), factor)
