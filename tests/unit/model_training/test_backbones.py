"""Every network of the catalogue: its published size, its stages, and the layout that public checkpoints have."""

import numpy as np
import pytest
import torch
from torch import nn

from model_training.backbones.catalogue import BACKBONES, make_backbone, multiply_adds, parameters
from model_training.backbones.iresnet import DEPTHS, IResNet
from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.mobilenet import MobileNetV1, MobileNetV2
from model_training.backbones.units import ConvUnit, fold_batch_norms
from tests.unit.model_training.common import random_pixels

MOBILE = ("mobilenetv1", "mobilenetv2", "mobilefacenet", "mobilefacenet-r")


@pytest.mark.parametrize(
    ("name", "count", "millions_of_multiplications"),
    # Parameters of the public checkpoints' networks, and the multiplications that their authors state.
    [
        ("iresnet18", 24_025_600, 2_610),
        ("iresnet34", 34_139_328, 4_460),
        ("iresnet50", 43_590_848, 6_309),
        ("iresnet100", 65_156_160, 12_090),
        # As designed for 224 px with a strided stem: 569 and 300.
        ("mobilenetv1", 3_533_056, 568),
        ("mobilenetv2", 2_149_312, 288),
        # "221 M" in the paper, with 128 values.
        ("mobilefacenet", 1_069_184, 221),
    ],
)
def test_sizes(name, count, millions_of_multiplications):
    network = make_backbone(name)
    assert parameters(network) == count
    assert multiply_adds(network) / 1e6 == pytest.approx(millions_of_multiplications, rel=0.002)


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if entry.published])
def test_the_paper_has_the_same_sizes(name):
    """MobileFaceNet-R within 4 %: the paper does not lay it out."""
    entry = BACKBONES[name]
    close = 0.04 if name in ("mobilefacenet", "mobilefacenet-r") else 0.01
    assert parameters(make_backbone(name)) / 1e6 == pytest.approx(entry.published, rel=close)


@pytest.mark.parametrize("name", [*MOBILE, "iresnet18"])
def test_maps_are_as_declared(name):
    network = make_backbone(name, 16).eval()
    with torch.no_grad():
        embedding, maps = network.forward_features(random_pixels(2))
        assert torch.equal(network(random_pixels(2)), embedding)
    assert network.dimension == 16
    assert embedding.shape == (2, 16)
    for stage, feature_map in zip(network.feature_stages(), maps, strict=True):
        assert feature_map.shape == (2, stage.channels, 112 // stage.stride, 112 // stage.stride)
    assert len({stage.name for stage in network.feature_stages()}) == len(maps)


def public_layout(depth):
    """Names and shapes in a checkpoint of arcface_torch, written from its description rather than from our module."""

    def norm(name, channels):
        yield from ((f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var"))
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (64, 3, 3, 3)
    yield from norm("bn1", 64)
    yield "prelu.weight", (64,)
    before = 64
    for stage, (channels, blocks) in enumerate(zip((64, 128, 256, 512), DEPTHS[depth], strict=True), 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            yield from norm(f"{name}.bn1", before)
            yield f"{name}.conv1.weight", (channels, before, 3, 3)
            yield from norm(f"{name}.bn2", channels)
            yield f"{name}.prelu.weight", (channels,)
            yield f"{name}.conv2.weight", (channels, channels, 3, 3)
            yield from norm(f"{name}.bn3", channels)
            if block == 0:
                yield f"{name}.downsample.0.weight", (channels, before, 1, 1)
                yield from norm(f"{name}.downsample.1", channels)
            before = channels
    yield from norm("bn2", 512)
    yield from (("fc.weight", (512, 512 * 49)), ("fc.bias", (512,)))
    yield from norm("features", 512)


@pytest.mark.parametrize("depth", [18, 34, 50, 100])
def test_a_public_checkpoint_loads_strictly(depth):
    state = {name: torch.zeros(shape) for name, shape in public_layout(depth)}
    network = IResNet(depth)
    assert network.load_state_dict(state, strict=True)
    assert list(network.state_dict()) == list(state)


def test_the_last_norm_of_an_iresnet_has_no_scale_to_learn():
    network = IResNet(18, dimension=8)
    assert not network.features.weight.requires_grad
    assert torch.equal(network.features.weight, torch.ones(8))


def test_mobilenets_have_their_published_blocks():
    v1 = [m for m in MobileNetV1(8).modules() if isinstance(m, ConvUnit)]
    # Stem, thirteen separable convolutions of two each, the global one.
    assert len(v1) == 1 + 13 * 2 + 1
    v2 = MobileNetV2(8)
    assert sum(len(stage) for stage in v2.stages) == 17
    assert isinstance(v2.stages[0][0].expand, nn.Identity)


@pytest.mark.parametrize("name", MOBILE)
def test_folding_changes_nothing(name):
    torch.manual_seed(0)
    network = make_backbone(name, 8).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.no_grad():
        before = network(random_pixels(2)).numpy()
        after = fold_batch_norms(network)(random_pixels(2)).numpy()
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in network.modules())
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-5)


def test_width_scales_every_channel():
    shape = MobileFaceNetShape()
    assert shape.widened(1.0) == shape
    half = shape.widened(0.5)
    assert (half.channels, half.expansions, half.transition_expansions) == (
        (32, 64, 64),
        (64, 128, 128),
        (64, 128, 256),
    )
    assert (half.stem_channels, half.head_channels, half.dimension, half.blocks) == (32, 256, 128, (4, 6, 2))
    with torch.no_grad():
        assert MobileFaceNet(half).eval()(random_pixels(1)).shape == (1, 128)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="no network named 'resnet'; there are iresnet18"):
        make_backbone("resnet")
