"""What the layers of a network put out for some pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Layer = TypeVar("Layer", bound=nn.Module)


def watched(
    network: nn.Module, layers: Iterable[Layer], pixels: Tensor, summary: Callable[[Tensor], T]
) -> dict[Layer, T]:
    """Run a network once and sum up what some of its layers put out.

    Args:
        network: in eval mode.
        layers: of the network, each of which it runs once.
        pixels: (n, 3, h, w) float32.
        summary: of a layer's output; called at once, so that outputs need not stay in memory.
    """
    found: dict[Layer, T] = {}

    def note(layer: Layer, _: tuple[Tensor, ...], output: Tensor) -> None:
        found[layer] = summary(output)

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found
