"""MobileFaceNet (Chen et al., arXiv 1804.07573) at any width and depth, its activations annealable to ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MobileFaceNetShape:
    """Depth and width of one MobileFaceNet.

    Attributes:
        blocks: residual blocks after each of the three strided bottlenecks.
        channels: channels that each of the three stages carries.
        expansions: channels inside the residual bottlenecks of each stage.
        transition_expansions: channels inside the strided bottlenecks.
        head_channels: channels before the global depthwise convolution.
        dimension: length of the embedding.
    """

    blocks: tuple[int, int, int] = (4, 6, 2)
    channels: tuple[int, int, int] = (64, 128, 128)
    expansions: tuple[int, int, int] = (128, 256, 256)
    transition_expansions: tuple[int, int, int] = (128, 256, 512)
    stem_channels: int = 64
    head_channels: int = 512
    dimension: int = 128


@dataclass(frozen=True)
class Stage:
    """A place where feature maps may be read: name, channels and stride to the input."""

    name: str
    channels: int
    stride: int


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
    """Convolution, batch normalisation and, unless `linear`, an annealed PReLU."""

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

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.act(self.bn(self._convolve(x)))
        return out

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv
        if self.training and conv.groups > 1 and conv.stride == (2, 2):
            # The same numbers: oneDNN's backward pass of a strided depthwise convolution on a CPU is ten times slower
            # than that of a dense one of which every second output is dropped.
            dense = nn.functional.conv2d(x, conv.weight, conv.bias, 1, conv.padding, 1, conv.groups)
            return dense[:, :, ::2, ::2]
        out: Tensor = conv(x)
        return out

    def fold_batch_norm(self) -> None:
        """Absorb the BatchNorm's frozen statistics into the convolution; the function stays the same."""
        if isinstance(self.bn, nn.BatchNorm2d):
            training = self.training
            self.eval()
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()
            self.train(training)


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise, project linearly; adds its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvUnit(inputs, expansion, 1)
        self.depthwise = ConvUnit(expansion, expansion, 3, stride, groups=expansion)
        self.project = ConvUnit(expansion, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class MobileFaceNet(nn.Module):
    """Aligned face (n, 3, 112, 112), normalised, to a raw embedding (n, dimension)."""

    def __init__(self, shape: MobileFaceNetShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or MobileFaceNetShape()
        self.stem = ConvUnit(3, shape.stem_channels, 3, stride=2)
        self.stem_depthwise = ConvUnit(shape.stem_channels, shape.stem_channels, 3, groups=shape.stem_channels)
        stages = []
        inputs = shape.stem_channels
        for index, blocks in enumerate(shape.blocks):
            outputs, expansion = shape.channels[index], shape.expansions[index]
            layers: list[nn.Module] = [Bottleneck(inputs, outputs, shape.transition_expansions[index], stride=2)]
            layers += [Bottleneck(outputs, outputs, expansion, stride=1) for _ in range(blocks)]
            stages.append(nn.Sequential(*layers))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.head = ConvUnit(inputs, shape.head_channels, 1)
        self.global_depthwise = ConvUnit(
            shape.head_channels, shape.head_channels, 7, groups=shape.head_channels, padding=0, linear=True
        )
        self.fc = nn.Linear(shape.head_channels, shape.dimension)
        self.fc_bn: nn.Module = nn.BatchNorm1d(shape.dimension, eps=2e-5)

    def feature_stages(self) -> tuple[Stage, ...]:
        """The maps that `forward_features` returns, in order."""
        return tuple(Stage(f"stage{i + 1}", channels, 4 * 2**i) for i, channels in enumerate(self.shape.channels))

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw embedding (n, dimension) and one map per declared stage."""
        x = self.stem_depthwise(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.global_depthwise(self.head(x)).flatten(1)
        return self.fc_bn(self.fc(x)), maps

    def forward(self, x: Tensor) -> Tensor:
        """Raw embedding, (n, dimension); its direction is what counts."""
        return self.forward_features(x)[0]


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


def fold_batch_norms(network: MobileFaceNet) -> MobileFaceNet:
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
