"""A student that trains with the rounding which 8-bit integers will bring."""

from __future__ import annotations

from torch import Tensor, nn

from model_training.backbones.eight_bits import RoundedRange
from model_training.backbones.mobilefacenet import MobileFaceNet
from model_training.backbones.units import Bottleneck, ConvUnit, MobileBackbone
from model_training.training.equalising import UnfitNetworkError, check_plain, equalise
from model_training.training.watching import watched

# Of a tensor's values, the share that its range holds; the quantiser takes the same.
_SHARE = 0.99999


def prepare_for_integers(network: MobileBackbone, pixels: Tensor) -> None:
    """Equalise a network and let it compute as its 8-bit version will: rounded weights and activations; in place.

    The stem and what follows the last stage stay in floating point, as in what `quantise` writes. Ranges of
    activations are measured once, here; weights are rounded anew at each step.

    Args:
        network: a MobileFaceNet without BatchNorms and with ReLU.
        pixels: (n, 3, 112, 112) float32, some training faces.

    Raises:
        UnfitNetworkError: it is another network, or BatchNorms or PReLU slopes are left.
    """
    if not isinstance(network, MobileFaceNet):
        raise UnfitNetworkError("only a MobileFaceNet trains for 8-bit integers")
    check_plain(network)
    training = network.training
    network.eval()
    equalise(network, pixels)
    in_floats = (network.stem, network.stem_depthwise, network.head, network.global_depthwise)
    rounded: list[nn.Module] = [network.stem_depthwise]
    for module in network.modules():
        if isinstance(module, Bottleneck) and module.residual:
            rounded.append(module)
        elif isinstance(module, ConvUnit) and module not in in_floats:
            module.rounds_weight = True
            rounded.append(module)
    for module, (low, high) in watched(network, rounded, pixels, _range).items():
        module.rounding = RoundedRange(low, high)
    network.train(training)


def _range(output: Tensor) -> tuple[float, float]:
    """What nearly all values lie between."""
    values = output.flatten()
    beyond = max(1, round(len(values) * (1 - _SHARE)))
    low = values.topk(beyond, largest=False).values[-1]
    return float(low), float(values.topk(beyond).values[-1])
