"""What mobile networks for faces are built of: convolutions whose PReLU can be given up, bottlenecks, and the head."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from model_training.backbones.eight_bits import rounded_weight
from model_training.backbones.stages import Backbone

_LAST_MAP_PX = 7


class AnnealedPReLU(nn.Module):
    """PReLU whose learned slopes are multiplied by `slope_factor`; at 0 it is exactly ReLU.

    ReLU fuses into convolutions at inference and PReLU does not, so a student starts with the teacher's slopes and
    gives them up while it trains.
    """

    slope_factor: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        # A tensor, so that a compiled graph survives its changes; the flag, so that the last phase is a bare ReLU.
        self.register_buffer("slope_factor", torch.ones(()))
        self.is_relu = False

    def set_slope_factor(self, factor: float) -> None:
        """Multiply the learned slopes by `factor` from now on."""
        self.slope_factor.fill_(factor)
        self.is_relu = factor == 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map of any (n, channels, h, w); same shape back."""
        if self.is_relu:
            return torch.relu(x)
        return nn.functional.prelu(x, (self.weight * self.slope_factor).to(x.dtype))


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and, unless `linear`, an annealed PReLU.

    Attributes:
        rounds_weight: whether it computes with the weights that 8-bit integers would hold.
        rounding: what becomes of its output; see `eight_bits.RoundedRange`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        *,
        padding: int | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act: nn.Module = nn.Identity() if linear else AnnealedPReLU(outputs)
        self.rounds_weight = False
        self.rounding: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.rounding(self.act(self.bn(self._convolve(x))))
        return out

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv
        weight = rounded_weight(conv.weight) if self.rounds_weight else conv.weight
        if self.training and conv.groups > 1 and conv.stride == (2, 2):
            # The same numbers: oneDNN's backward pass of a strided depthwise convolution on a CPU is ten times slower
            # than that of a dense one of which every second output is dropped.
            dense = nn.functional.conv2d(x, weight, conv.bias, 1, conv.padding, 1, conv.groups)
            return dense[:, :, ::2, ::2]
        if self.rounds_weight:
            return nn.functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, 1, conv.groups)
        # As a module, since others count and watch convolutions by their hooks.
        out: Tensor = conv(x)
        return out

    def fold_batch_norm(self) -> None:
        """Absorb the BatchNorm's frozen statistics into the convolution; the function stays the same."""
        if isinstance(self.bn, nn.BatchNorm2d):
            training = self.training
            self.eval()
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.bn)
            assert self.conv.bias is not None
            # The fusion leaves a bias that it had to make frozen.
            self.conv.bias.requires_grad_(self.conv.weight.requires_grad)
            self.bn = nn.Identity()
            self.train(training)


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise, project linearly; adds its input where shapes allow.

    Args:
        expansion: channels of the depthwise convolution; where it is `inputs`, nothing is expanded.

    Attributes:
        rounding: what becomes of the sum with its input; see `eight_bits.RoundedRange`.

    Source: Sandler et al., MobileNetV2 (arXiv 1801.04381), section 3.3.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.expand: nn.Module = ConvUnit(inputs, expansion, 1) if expansion != inputs else nn.Identity()
        self.depthwise = ConvUnit(expansion, expansion, 3, stride, groups=expansion)
        self.project = ConvUnit(expansion, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs
        self.rounding: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return self.rounding(x + out) if self.residual else out


class MobileBackbone(Backbone):
    """A network of `ConvUnit`s that ends in MobileFaceNet's head.

    The head weighs the 49 places of the last map by a convolution of its size instead of averaging them: the corners
    of an aligned face say less than its middle (Chen et al., arXiv 1804.07573, section 3.1).
    """

    head: nn.Module
    global_depthwise: ConvUnit
    fc: nn.Linear
    fc_bn: nn.Module

    def add_head(self, inputs: int, head_channels: int | None, dimension: int) -> None:
        """To be called last in `__init__`.

        Args:
            inputs: channels of the last map, 7 x 7.
            head_channels: that it is taken to first; None leaves them.
            dimension: length of the embedding.
        """
        self.dimension = dimension
        self.head = nn.Identity() if head_channels is None else ConvUnit(inputs, head_channels, 1)
        channels = head_channels or inputs
        self.global_depthwise = ConvUnit(channels, channels, _LAST_MAP_PX, groups=channels, padding=0, linear=True)
        self.fc = nn.Linear(channels, dimension)
        self.fc_bn = nn.BatchNorm1d(dimension, eps=2e-5)

    def embed(self, last_map: Tensor) -> Tensor:
        """(n, inputs, 7, 7) to (n, dimension)."""
        out: Tensor = self.fc_bn(self.fc(self.global_depthwise(self.head(last_map)).flatten(1)))
        return out


def set_slope_factor(network: nn.Module, factor: float) -> None:
    """Scale every annealed slope of a network: 1 keeps PReLU, 0 makes ReLU.

    Raises:
        ValueError: the factor is outside [0, 1].
    """
    if not 0.0 <= factor <= 1.0:
        raise ValueError(f"slope factor must be in [0, 1], not {factor}")
    for module in network.modules():
        if isinstance(module, AnnealedPReLU):
            module.set_slope_factor(factor)


_Network = TypeVar("_Network", bound=MobileBackbone)


def fold_batch_norms(network: _Network) -> _Network:
    """Freeze a trained network's statistics by absorbing every BatchNorm, in place; the function stays the same.

    A student that starts from a trained network keeps the teacher's statistics anyway, and trains a third faster
    without the layers.
    """
    for module in network.modules():
        if isinstance(module, ConvUnit):
            module.fold_batch_norm()
    if isinstance(network.fc_bn, nn.BatchNorm1d):
        norm = network.fc_bn
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            network.fc.bias.copy_((network.fc.bias - norm.running_mean) * gain + norm.bias)
            network.fc.weight.mul_(gain[:, None])
        network.fc_bn = nn.Identity()
    return network
