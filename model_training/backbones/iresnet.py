"""Improved residual networks of the ArcFace family, module for module as public PyTorch checkpoints name them.

A state dict of `arcface_torch` loads strictly. Source: Deng et al., ArcFace (arXiv 1801.07698), section 3.1, the `E`
output and the `IR` block: normalise, convolve, normalise, PReLU, convolve with the stride, normalise.
"""

from __future__ import annotations

from torch import Tensor, nn

from model_training.backbones.stages import Backbone, Stage

_CHANNELS = (64, 128, 256, 512)
_LAST_MAP_PX = 7
_EPS = 1e-5
# Blocks of each stage. 90 is the depth of the teacher of ShrinkTeaNet's paper.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    90: (3, 8, 30, 3),
    100: (3, 13, 30, 3),
}


class IRBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which a strided block projects."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=_EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, eps=_EPS)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return out + (x if self.downsample is None else self.downsample(x))


class IResNet(Backbone):
    """See `Backbone`; four stages at strides 2 to 16.

    Args:
        depth: one of `DEPTHS`.
        dimension: length of the embedding.
        dropout: share of the last map's values dropped while training.
    """

    def __init__(self, depth: int = 50, dimension: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.dimension = dimension
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0], eps=_EPS)
        self.prelu = nn.PReLU(_CHANNELS[0])
        inputs = _CHANNELS[0]
        for number, (outputs, blocks) in enumerate(zip(_CHANNELS, DEPTHS[depth], strict=True), 1):
            layers = [IRBlock(inputs, outputs, stride=2)]
            layers += [IRBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs, eps=_EPS)
        self.dropout = nn.Dropout(dropout, inplace=True)
        self.fc = nn.Linear(inputs * _LAST_MAP_PX**2, dimension)
        self.features = nn.BatchNorm1d(dimension, eps=_EPS)
        # A length that the network could choose freely would mean nothing on the sphere.
        nn.init.constant_(self.features.weight, 1.0)
        self.features.weight.requires_grad = False

    def feature_stages(self) -> tuple[Stage, ...]:
        """See `Backbone`."""
        return tuple(Stage(f"layer{i}", channels, 2**i) for i, channels in enumerate(_CHANNELS, 1))

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Backbone`."""
        x = self.prelu(self.bn1(self.conv1(x)))
        maps = []
        for stage in self.feature_stages():
            x = self.get_submodule(stage.name)(x)
            maps.append(x)
        x = self.dropout(self.bn2(x).flatten(1))
        return self.features(self.fc(x)), maps
