"""A student's start: its teacher without some residual blocks."""

from __future__ import annotations

from torch import nn

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import Bottleneck, fold_batch_norms


def kept_blocks(available: int, wanted: int) -> list[int]:
    """Indices of the residual blocks that stay, spread evenly and keeping the first.

    Raises:
        ValueError: more are wanted than there are.
    """
    if not 0 <= wanted <= available:
        raise ValueError(f"cannot keep {wanted} of {available} residual blocks")
    return [i * available // wanted for i in range(wanted)]


def drop_blocks(network: MobileFaceNet, blocks: tuple[int, int, int]) -> MobileFaceNet:
    """A shallower copy of a network: in each stage keep `blocks` residual blocks, spread evenly.

    A residual block adds a correction to its input, so a network without some of them still works, only worse, and
    distillation repairs it in a fraction of the time that training from nothing takes.

    Raises:
        ValueError: a stage has fewer blocks than wanted.
    """
    values = {**network.shape.__dict__, "blocks": blocks}
    small = MobileFaceNet(MobileFaceNetShape(**values))
    if isinstance(network.fc_bn, nn.Identity):
        small = fold_batch_norms(small)
    kept: list[nn.Sequential] = []
    for stage, wanted in zip(network.stages, blocks, strict=True):
        assert isinstance(stage, nn.Sequential)
        residual = [block for block in stage if isinstance(block, Bottleneck)][1:]
        kept.append(nn.Sequential(stage[0], *(residual[i] for i in kept_blocks(len(residual), wanted))))
    for target, source in zip(small.stages, kept, strict=True):
        _copy_module(target, source)
    for name in ("stem", "stem_depthwise", "head", "global_depthwise", "fc", "fc_bn"):
        _copy_module(getattr(small, name), getattr(network, name))
    return small


def _copy_module(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
    # A BatchNorm's epsilon is no part of its state.
    for copy, original in zip(target.modules(), source.modules(), strict=True):
        if isinstance(copy, nn.BatchNorm1d | nn.BatchNorm2d) and isinstance(original, nn.BatchNorm1d | nn.BatchNorm2d):
            copy.eps = original.eps
