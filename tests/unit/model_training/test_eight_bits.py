"""Training with the rounding that 8-bit integers bring, and the equalised channels that suffer less from it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import service
from model_training.backbones.catalogue import make_backbone
from model_training.backbones.eight_bits import RoundedRange, rounded_weight
from model_training.backbones.mobilefacenet import MobileFaceNet
from model_training.backbones.units import Bottleneck, ConvUnit, fold_batch_norms, set_slope_factor
from model_training.training import integer_aware
from model_training.training.equalising import equalise
from model_training.training.exported import load_exported
from model_training.training.integer_aware import prepare_for_integers
from tests.unit.model_training.common import TINY, random_network, random_pixels

STUDENT = Path(service.__file__).parent / "models" / "student.onnx"


def plain_network(seed: int = 0) -> MobileFaceNet:
    network = fold_batch_norms(random_network(TINY, seed)).eval()
    set_slope_factor(network, 0.0)
    return network


def shipped_network() -> MobileFaceNet:
    return load_exported(STUDENT)


def unevened(network: MobileFaceNet) -> MobileFaceNet:
    """Channels inside bottlenecks whose ranges differ by up to a factor of fifty more, to no effect on the outcome."""
    with torch.no_grad():
        for block in (block for stage in network.stages for block in stage):
            factors = torch.logspace(-0.85, 0.85, len(block.expand.conv.bias))
            block.expand.conv.weight *= factors[:, None, None, None]
            block.expand.conv.bias *= factors
            block.depthwise.conv.weight /= factors[:, None, None, None]
    return network


def pictures(count: int) -> torch.Tensor:
    """Soft patches of colour: unlike noise, they do not all look the same from afar."""
    patches = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 4 - 2
    return nn.functional.interpolate(patches, size=(112, 112), mode="bilinear")


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of what tells the pictures apart that got lost."""
    return ((got - expected).square().mean() / (expected - expected.mean(dim=0)).square().mean()).item()


class TestRounding:
    def test_values_lie_on_256_steps_among_which_is_zero(self):
        rounding = RoundedRange(-0.37, 1.11)
        values = rounding(torch.linspace(-2, 2, 10_001))
        steps = values.unique()
        assert len(steps) == 256
        assert 0.0 in steps
        np.testing.assert_allclose(steps.diff(), 1.48 / 255, rtol=1e-3)

    def test_inside_it_moves_nothing_by_more_than_half_a_step_and_cuts_off_the_rest(self):
        rounding = RoundedRange(0.0, 2.55)
        inside = torch.linspace(0, 2.55, 1000)
        assert float((rounding(inside) - inside).abs().max()) <= 0.005 + 1e-6
        torch.testing.assert_close(rounding(torch.tensor([-1.0, 9.0])), torch.tensor([0.0, 2.55]))

    def test_gradients_pass_but_where_it_cuts_off(self):
        values = torch.tensor([-1.0, 0.503, 9.0], requires_grad=True)
        RoundedRange(0.0, 2.55)(values).sum().backward()
        assert values.grad.tolist() == [0.0, 1.0, 0.0]

    def test_a_range_without_width_is_refused(self):
        with pytest.raises(ValueError, match="nothing lies between"):
            RoundedRange(0.0, 0.0)

    def test_weights_have_255_steps_a_channel_and_keep_their_largest(self):
        weight = torch.randn(3, 400, 1, 1) * torch.tensor([1.0, 10.0, 0.01])[:, None, None, None]
        rounded = rounded_weight(weight)
        for channel, original in zip(rounded, weight, strict=True):
            step = original.abs().max() / 127
            whole = channel / step
            np.testing.assert_allclose(whole, whole.round(), atol=1e-3)
            assert float((channel - original).abs().max()) <= 0.5 * float(step) + 1e-6
        torch.testing.assert_close(rounded.flatten(1).abs().amax(1), weight.flatten(1).abs().amax(1))


class TestEqualising:
    def test_the_function_stays_and_ranges_become_alike(self):
        network, pixels = unevened(plain_network()), random_pixels(8)
        before = network(pixels)
        equal = copy.deepcopy(network)
        equalise(equal, pixels)
        torch.testing.assert_close(equal(pixels), before, rtol=1e-3, atol=1e-4)

        def spread(one: MobileFaceNet) -> float:
            ranges = []
            hook = one.stages[0][0].expand.register_forward_hook(
                lambda *call: ranges.append(call[2].abs().amax(dim=(0, 2, 3)))
            )
            one(pixels)
            hook.remove()
            live = ranges[0][ranges[0] > 1e-6]
            return (live.max() / live.min()).item()

        assert 3 * spread(equal) < spread(network)

    def test_a_silent_channel_is_left_as_it_is(self):
        network, pixels = plain_network(), random_pixels(4)
        unit = network.stages[1][1].expand
        with torch.no_grad():
            unit.conv.weight[2] = -unit.conv.weight[2].abs() * 1e-3
            unit.conv.bias[2] = -50.0
        before = copy.deepcopy(unit)
        equalise(network, pixels)
        torch.testing.assert_close(unit.conv.weight[2], before.conv.weight[2])
        assert torch.isfinite(torch.cat([p.flatten() for p in network.parameters()])).all()

    @pytest.mark.parametrize(
        ("network", "message"),
        [(random_network(TINY), "BatchNorms"), (fold_batch_norms(random_network(TINY)), "PReLU slopes")],
    )
    def test_what_it_cannot_equalise_is_refused(self, network, message):
        with pytest.raises(ValueError, match=message):
            equalise(network, random_pixels(2))


class TestIntegerAware:
    def test_all_but_the_stem_and_the_head_round(self):
        network = plain_network()
        prepare_for_integers(network, pictures(4))
        rounding = [name for name, unit in network.named_modules() if getattr(unit, "rounds_weight", False)]
        convolutions = [name for name, unit in network.named_modules() if isinstance(unit, ConvUnit)]
        assert set(convolutions) - set(rounding) == {"stem", "stem_depthwise", "head", "global_depthwise"}
        assert isinstance(network.stem_depthwise.rounding, RoundedRange)
        assert isinstance(network.stem.rounding, nn.Identity)
        sums = [block for block in network.modules() if isinstance(block, Bottleneck) and block.residual]
        assert sums
        assert all(isinstance(block.rounding, RoundedRange) for block in sums)

    def test_it_computes_nearly_the_same_and_keeps_its_names(self):
        network, pixels = shipped_network(), pictures(8)
        expected, names = network(pixels), list(network.state_dict())
        prepare_for_integers(network, pixels)
        assert list(network.state_dict()) == names
        assert 1e-7 < error(network(pixels), expected) < 0.1

    def test_equalised_channels_round_better(self, monkeypatch):
        network, pixels = unevened(shipped_network()), pictures(8)
        expected = network(pixels)
        equal, uneven = copy.deepcopy(network), copy.deepcopy(network)
        prepare_for_integers(equal, pixels)
        monkeypatch.setattr(integer_aware, "equalise", lambda *_: None)
        prepare_for_integers(uneven, pixels)
        assert error(equal(pixels), expected) < 0.7 * error(uneven(pixels), expected)

    def test_training_reaches_every_weight(self):
        network, pixels = plain_network(), pictures(4)
        prepare_for_integers(network, pixels)
        network.train()(pixels).square().sum().backward()
        still = [
            name
            for name, parameter in network.named_parameters()
            if ".act." not in name and (parameter.grad is None or not parameter.grad.any())
        ]
        assert not still

    def test_another_network_is_refused(self):
        with pytest.raises(ValueError, match="only a MobileFaceNet"):
            prepare_for_integers(make_backbone("mobilenetv1", 16), pictures(2))
