"""The same function with channels of like range, which 8-bit integers hold better: they have one scale a tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from model_training.backbones.mobilefacenet import MobileFaceNet
from model_training.backbones.units import Bottleneck, ConvUnit
from model_training.training.watching import watched

# Of a channel's values, the share that counts as its range.
_SHARE = 0.9999
# Of the mean range. A channel that is next to silent on some faces may still speak up on others.
_LEAST, _MOST = 1 / 16, 16.0
_SILENT = 1e-6


class UnfitNetworkError(ValueError):
    """A network is not of the kind that 8-bit integers can hold."""


def equalise(network: MobileFaceNet, pixels: Tensor) -> None:
    """Give the channels after the stem, inside every bottleneck and before the embedding like ranges; in place.

    ReLU does not mind a positive factor, so a channel may be divided by one where it is made and multiplied where it is
    read. A depthwise convolution has a scale a channel for its weights, so what it reads can be equalised altogether.
    What a dense convolution reads is equalised halfway: the factor's root goes into columns of weights that share a
    scale.

    Args:
        network: without BatchNorms and with ReLU, in eval mode.
        pixels: (n, 3, 112, 112) float32, some training faces.

    Raises:
        UnfitNetworkError: BatchNorms or PReLU slopes are left.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, arXiv
    1906.04721), section 4.1, with ranges of activations instead of weights.
    """
    check_plain(network)
    blocks = [block for stage in network.stages for block in stage.children() if isinstance(block, Bottleneck)]
    head = network.head
    assert isinstance(head, ConvUnit)
    inner = [unit for block in blocks for unit in (block.expand, block.depthwise) if isinstance(unit, ConvUnit)]
    peaks = watched(network, [network.stem_depthwise, *inner, head], pixels, _peak)
    if isinstance(blocks[0].expand, ConvUnit):
        _move_half(network.stem_depthwise, blocks[0].expand, peaks)
    for block in blocks:
        if isinstance(block.expand, ConvUnit):
            _move(block.expand, block.depthwise, peaks[block.expand])
        _move_half(block.depthwise, block.project, peaks)
    _move(head, network.global_depthwise, peaks[head])


def check_plain(network: MobileFaceNet) -> None:
    """Make sure that a network is convolutions and ReLU alone.

    Raises:
        UnfitNetworkError: BatchNorms or PReLU slopes are left.
    """
    for unit in network.modules():
        if isinstance(unit, ConvUnit) and not isinstance(unit.bn, torch.nn.Identity):
            raise UnfitNetworkError("BatchNorms are left; fold them first")
        if getattr(unit, "is_relu", True) is False:
            raise UnfitNetworkError("PReLU slopes are left; 8-bit integers need ReLU")


def _move(maker: ConvUnit, reader: ConvUnit, ranges: Tensor) -> None:
    """Divide a unit's output channels by their ranges, relative to the mean one, and undo that in the reader.

    Channels that were silent are left as they are.
    """
    factors = ranges / ranges[ranges > _SILENT].log().mean().exp()
    factors = torch.where(ranges > _SILENT, factors.clamp(_LEAST, _MOST), 1.0)
    assert maker.conv.bias is not None
    with torch.no_grad():
        maker.conv.weight /= factors[:, None, None, None]
        maker.conv.bias /= factors
        if reader.conv.groups > 1:
            reader.conv.weight *= factors[:, None, None, None]
        else:
            reader.conv.weight *= factors[None, :, None, None]


def _move_half(maker: ConvUnit, reader: ConvUnit, peaks: dict[ConvUnit, Tensor]) -> None:
    """`_move` between a unit and a dense one, so that what is made and the columns that read it end up as uneven."""
    columns = reader.conv.weight.detach().abs().amax(dim=(0, 2, 3)).clamp_min(_SILENT)
    _move(maker, reader, (peaks[maker] / columns).sqrt())


def _peak(output: Tensor) -> Tensor:
    """(channels,): what (n, channels, h, w) values of each channel hardly ever exceed."""
    values = output.abs().transpose(0, 1).flatten(1)
    beyond = max(1, round(values.shape[1] * (1 - _SHARE)))
    return values.topk(beyond, dim=1).values[:, -1]
