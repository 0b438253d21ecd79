"""A student's start: a trained MobileFaceNet without its least telling channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import Bottleneck, ConvUnit, fold_batch_norms


class _Inputs:
    """Mean and deviation of every input channel of some layers, over faces and places."""

    def __init__(self, network: MobileFaceNet, layers: Iterable[nn.Module], pixels: Tensor) -> None:
        self.mean: dict[nn.Module, Tensor] = {}
        self.deviation: dict[nn.Module, Tensor] = {}
        hooks = [layer.register_forward_pre_hook(self._note) for layer in layers]
        with torch.no_grad():
            network(pixels)
        for hook in hooks:
            hook.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        self.mean[layer], self.deviation[layer] = values.mean(dim=1), values.std(dim=1)


def narrow(network: MobileFaceNet, shape: MobileFaceNetShape, pixels: Tensor) -> MobileFaceNet:
    """A narrower copy: in each group of channels keep those whose variation weighs most in the layers that read them.

    What a dropped channel says on average goes into its readers' biases, so only its variation is lost.

    Args:
        network: without BatchNorms, in eval mode.
        shape: of the copy; as deep as the network and nowhere wider.
        pixels: (n, 3, 112, 112) float, some training faces.

    Raises:
        ValueError: the shape is deeper, shallower or wider somewhere.

    Source: the criterion is that of Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019),
    for the linear reader alone.
    """
    if shape.blocks != network.shape.blocks or shape.dimension != network.shape.dimension:
        raise ValueError(f"a network of {network.shape} cannot be narrowed to {shape}: depth and dimension stay")
    blocks = [list(_bottlenecks(stage)) for stage in network.stages]
    flat = [block for stage in blocks for block in stage]
    assert isinstance(network.head, ConvUnit)
    readers: list[nn.Module] = [_conv(block.expand) for block in flat] + [_conv(block.project) for block in flat]
    readers += [_conv(network.head), network.fc]
    inputs = _Inputs(network, readers, pixels)

    def kept(count: int, group: Sequence[nn.Module]) -> Tensor:
        scores = torch.stack(
            [(inputs.deviation[layer] * _weight(layer).flatten(2).norm(dim=(0, 2))) ** 2 for layer in group]
        ).sum(dim=0)
        if not 1 <= count <= len(scores):
            raise ValueError(f"cannot keep {count} of {len(scores)} channels")
        return torch.sort(torch.topk(scores, count).indices).values

    small = fold_batch_norms(MobileFaceNet(shape)).eval()
    stem = kept(shape.stem_channels, [_conv(flat[0].expand)])
    _copy_unit(small.stem, network.stem, stem)
    _copy_unit(small.stem_depthwise, network.stem_depthwise, stem)
    read = stem
    for index, stage in enumerate(blocks):
        following = _conv(blocks[index + 1][0].expand) if index + 1 < len(blocks) else _conv(network.head)
        stream = kept(shape.channels[index], [*(_conv(block.expand) for block in stage[1:]), following])
        for place, (target, source) in enumerate(zip(_bottlenecks(small.stages[index]), stage, strict=True)):
            widths = shape.expansions if place else shape.transition_expansions
            inner = kept(widths[index], [_conv(source.project)])
            _copy_unit(target.expand, source.expand, inner, read, inputs)
            _copy_unit(target.depthwise, source.depthwise, inner)
            _copy_unit(target.project, source.project, stream, inner, inputs)
            read = stream
    head = kept(shape.head_channels, [network.fc])
    _copy_unit(small.head, network.head, head, read, inputs)
    _copy_unit(small.global_depthwise, network.global_depthwise, head)
    with torch.no_grad():
        small.fc.weight.copy_(network.fc.weight[:, head])
        small.fc.bias.copy_(network.fc.bias + _average_of_the_rest(network.fc, head, inputs))
    return small


def _bottlenecks(stage: nn.Module) -> Iterable[Bottleneck]:
    for block in stage.children():
        assert isinstance(block, Bottleneck)
        yield block


def _conv(unit: nn.Module) -> nn.Conv2d:
    assert isinstance(unit, ConvUnit)
    return unit.conv


def _weight(layer: nn.Module) -> Tensor:
    """(outputs, inputs, places) of a convolution or a dense layer."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach()
    return weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]


def _average_of_the_rest(layer: nn.Module, kept: Tensor, inputs: _Inputs) -> Tensor:
    dropped = torch.ones(_weight(layer).shape[1], dtype=torch.bool)
    dropped[kept] = False
    return _weight(layer)[:, dropped, 0] @ inputs.mean[layer][dropped]


def _copy_unit(
    target: nn.Module, source: nn.Module, outputs: Tensor, read: Tensor | None = None, inputs: _Inputs | None = None
) -> None:
    """Copy the kept rows of a convolution and, unless it is depthwise or the first, the kept columns."""
    assert isinstance(target, ConvUnit) and isinstance(source, ConvUnit)
    weight, bias = source.conv.weight.detach()[outputs], source.conv.bias
    assert bias is not None and target.conv.bias is not None
    bias = bias.detach()
    if read is not None:
        assert inputs is not None
        weight, bias = weight[:, read], bias + _average_of_the_rest(source.conv, read, inputs)
    with torch.no_grad():
        target.conv.weight.copy_(weight)
        target.conv.bias.copy_(bias[outputs])
        slopes = getattr(source.act, "weight", None)
        if slopes is not None:
            target.act.weight.copy_(slopes.detach()[outputs])  # type: ignore[union-attr, operator]
