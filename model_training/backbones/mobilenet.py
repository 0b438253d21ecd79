"""MobileNetV1 and V2 as face networks: no stride in the stem, PReLU, and MobileFaceNet's head.

A 112 px face is a quarter of the pictures that they were designed for, so the first convolution keeps its size; the
last map then has the 7 x 7 places that it has there. Parameters do not depend on strides, multiplications do.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from model_training.backbones.stages import Stage
from model_training.backbones.units import Bottleneck, ConvUnit, MobileBackbone

_STEM_CHANNELS = 32
# Howard et al., arXiv 1704.04861, table 1: channels of the separable convolutions. A stride of 2 opens a row.
_V1_STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))
# Sandler et al., arXiv 1801.04381, table 2: expansion, channels, blocks, stride of the first.
_V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_V2_HEAD_CHANNELS = 512


class _Staged(MobileBackbone):
    """A stem, parts that each halve the map but for the first, and the head."""

    def _assemble(self, parts: list[nn.Sequential], channels: list[int], head_channels: int | None, dim: int) -> None:
        self.stem = ConvUnit(3, _STEM_CHANNELS, 3)
        self.stages = nn.ModuleList(parts)
        self._channels = channels
        self.add_head(channels[-1], head_channels, dim)

    def feature_stages(self) -> tuple[Stage, ...]:
        """See `Backbone`; the part at full size is none of them."""
        return tuple(Stage(f"stage{i}", channels, 2**i) for i, channels in enumerate(self._channels) if i)

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Backbone`."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.embed(x), maps[1:]


class MobileNetV1(_Staged):
    """Depthwise separable convolutions; four stages at strides 2 to 16."""

    def __init__(self, dimension: int = 256) -> None:
        super().__init__()
        parts, inputs = [], _STEM_CHANNELS
        for number, row in enumerate(_V1_STAGES):
            layers: list[nn.Module] = []
            for place, outputs in enumerate(row):
                stride = 2 if number and place == 0 else 1
                layers += [ConvUnit(inputs, inputs, 3, stride, groups=inputs), ConvUnit(inputs, outputs, 1)]
                inputs = outputs
            parts.append(nn.Sequential(*layers))
        self._assemble(parts, [row[-1] for row in _V1_STAGES], None, dimension)


class MobileNetV2(_Staged):
    """Inverted residuals with linear bottlenecks; four stages at strides 2 to 16."""

    def __init__(self, dimension: int = 256) -> None:
        super().__init__()
        opening = [number for number, (_, _, _, stride) in enumerate(_V2_ROWS) if stride == 2]
        parts, channels, inputs = [], [], _STEM_CHANNELS
        for first, end in pairwise([0, *opening, len(_V2_ROWS)]):
            layers: list[nn.Module] = []
            for expansion, outputs, blocks, stride in _V2_ROWS[first:end]:
                for block in range(blocks):
                    layers.append(Bottleneck(inputs, outputs, expansion * inputs, stride if block == 0 else 1))
                    inputs = outputs
            parts.append(nn.Sequential(*layers))
            channels.append(inputs)
        self._assemble(parts, channels, _V2_HEAD_CHANNELS, dimension)
