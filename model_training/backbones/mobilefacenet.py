"""MobileFaceNet (Chen et al., arXiv 1804.07573) at any width and depth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from model_training.backbones.stages import Stage
from model_training.backbones.units import Bottleneck, ConvUnit, MobileBackbone


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

    def widened(self, factor: float) -> MobileFaceNetShape:
        """The same depth with every number of channels multiplied, to the nearest multiple of eight."""

        def scaled(channels: int) -> int:
            return max(8, round(channels * factor / 8) * 8)

        def all_scaled(channels: tuple[int, int, int]) -> tuple[int, int, int]:
            first, second, third = channels
            return scaled(first), scaled(second), scaled(third)

        return MobileFaceNetShape(
            self.blocks,
            all_scaled(self.channels),
            all_scaled(self.expansions),
            all_scaled(self.transition_expansions),
            scaled(self.stem_channels),
            scaled(self.head_channels),
            self.dimension,
        )


class MobileFaceNet(MobileBackbone):
    """See `Backbone`; three stages at strides 4, 8 and 16."""

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
        self.add_head(inputs, shape.head_channels, shape.dimension)

    def feature_stages(self) -> tuple[Stage, ...]:
        """See `Backbone`."""
        return tuple(Stage(f"stage{i + 1}", channels, 4 * 2**i) for i, channels in enumerate(self.shape.channels))

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Backbone`."""
        x = self.stem_depthwise(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.embed(x), maps
