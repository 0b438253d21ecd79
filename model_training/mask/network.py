"""A small convolutional network from the pixels of a face to one logit: whether a mask is worn."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.vision.attributes.mask import INPUT_SIDE_PX

_STRIDES = (1, 2, 1, 2)


class MaskNetwork(nn.Module):
    """Depthwise separable convolutions and a global depthwise one, which keeps where on the face something was seen.

    The blocks are those of MobileNet (Howard et al. 2017), the end is that of MobileFaceNet (Chen et al. 2018).

    Args:
        channels: of the first convolution and of the four blocks behind it.
    """

    def __init__(self, channels: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        layers = [_unit(3, channels[0], 3, stride=2)]
        side = INPUT_SIDE_PX // 2
        for before, after, stride in zip(channels, channels[1:], _STRIDES, strict=False):
            layers += [_unit(before, before, 3, stride=stride, groups=before), _unit(before, after, 1)]
            side //= stride
        self.features = nn.Sequential(*layers)
        self.places = nn.Conv2d(channels[-1], channels[-1], side, groups=channels[-1])
        self.answer = nn.Linear(channels[-1], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, 56, 56) float, RGB, normalised, to (n,) logits."""
        seen: Tensor = self.places(self.features(pixels)).flatten(1)
        logits: Tensor = self.answer(seen).squeeze(1)
        return logits


class MaskProbability(nn.Module):
    """What is shipped: a trained network with its norms folded into the convolutions, and a probability at the end."""

    def __init__(self, network: MaskNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        for unit in self.network.features:
            assert isinstance(unit, nn.Sequential)
            convolution, norm = unit[0], unit[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            unit[0], unit[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """As `MaskNetwork`, to (n,) probabilities."""
        return torch.sigmoid(self.network(pixels))


def _unit(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
