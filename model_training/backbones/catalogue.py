"""Every network by name, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model_training.backbones.iresnet import DEPTHS, IResNet
from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.mobilenet import MobileNetV1, MobileNetV2
from model_training.backbones.stages import Backbone
from service.contract import CROP_SIDE_PX


def _mobilefacenet(width: float, dimension: int) -> MobileFaceNet:
    return MobileFaceNet(MobileFaceNetShape(dimension=dimension).widened(width))


@dataclass(frozen=True)
class Entry:
    """A network that a recipe may name.

    Attributes:
        make: from a dimension.
        dimension: the usual one.
        published: millions of parameters that ShrinkTeaNet's paper states for it, where it does.
    """

    make: Callable[[int], Backbone]
    dimension: int
    published: float | None = None


_PUBLISHED = {90: 63.7}
BACKBONES: Mapping[str, Entry] = {
    **{f"iresnet{depth}": Entry(partial(IResNet, depth), 512, _PUBLISHED.get(depth)) for depth in DEPTHS},
    "mobilenetv1": Entry(MobileNetV1, 256, 3.5),
    "mobilenetv2": Entry(MobileNetV2, 256, 2.15),
    "mobilefacenet": Entry(partial(_mobilefacenet, 1.0), 256, 1.1),
    # The paper does not lay this one out; twice the channels is what its number of parameters agrees with.
    "mobilefacenet-r": Entry(partial(_mobilefacenet, 2.0), 256, 3.7),
}


def make_backbone(name: str, dimension: int | None = None) -> Backbone:
    """A network with fresh weights.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in BACKBONES:
        raise ValueError(f"no network named {name!r}; there are {', '.join(BACKBONES)}")
    entry = BACKBONES[name]
    return entry.make(dimension or entry.dimension)


def parameters(network: nn.Module) -> int:
    """Trained numbers of a network; running statistics are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module) -> int:
    """Multiplications of convolutions and linear layers for one face."""
    counted = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            each = module.weight[0].numel()
        else:
            assert isinstance(module, nn.Linear)
            each = module.in_features
        counted += output[0].numel() * each

    counted_layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in counted_layers]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, CROP_SIDE_PX, CROP_SIDE_PX))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return counted
