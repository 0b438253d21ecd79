"""Networks and banks small enough for a unit test."""

from __future__ import annotations

import numpy as np
import torch

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import AnnealedPReLU

TINY = MobileFaceNetShape(
    blocks=(1, 1, 0),
    channels=(4, 6, 8),
    expansions=(8, 12, 20),
    transition_expansions=(8, 12, 20),
    stem_channels=4,
    head_channels=12,
    dimension=8,
)


def random_network(shape: MobileFaceNetShape, seed: int = 0) -> MobileFaceNet:
    """In eval mode, with statistics and slopes unlike those that a fresh network has."""
    torch.manual_seed(seed)
    network = MobileFaceNet(shape).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.7, 1.3)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, AnnealedPReLU):
                module.weight.uniform_(-0.1, 0.5)
    return network


def random_pixels(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class MeanColours:
    """A teacher that can be worked out: mean colours of the picture's quarters and of its middle columns."""

    dimension = 8

    def __init__(self, name: str = "mean-colours") -> None:
        self.name = name
        self.seen = 0

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.seen += len(crops)
        halves = [crops[:, :56].mean(axis=(1, 2)), crops[:, 56:].mean(axis=(1, 2))]
        sides = [crops[:, :, part].mean(axis=(1, 2, 3))[:, None] for part in (slice(0, 56), slice(56, 112))]
        return (np.concatenate([*halves, *sides], axis=1) / 128 - 1).astype(np.float32)
