"""What the training code asks of any network that turns aligned faces into embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A place where feature maps may be read.

    Attributes:
        name: unique within its network.
        channels: of the map.
        stride: pixels of the input that one step on the map spans; a 112 px face gives a map of 112 / stride.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """Aligned face (n, 3, 112, 112), normalised, to a raw embedding (n, dimension), of which the direction counts.

    Attributes:
        dimension: length of an embedding.
    """

    dimension: int

    def feature_stages(self) -> tuple[Stage, ...]:
        """The maps that `forward_features` returns, in their order."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw embedding (n, dimension), and for each declared stage a map (n, channels, 112 / stride, 112 / stride)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Raw embedding, (n, dimension)."""
        return self.forward_features(x)[0]
