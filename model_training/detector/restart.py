"""An exported detector as a trainable network again, so that training goes on from weights whose run is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from model_training.detector.network import HEADS, PIXEL_SCALE, STRIDES, FaceNetwork
from service.contract import ModelManifest

_Weights = dict[str, NDArray[np.float32]]


class RestartError(ValueError):
    """The file is not an exported detector of this network's shape."""


def load_exported(network: FaceNetwork, path: Path, pixels: Tensor) -> None:
    """Load the weights of an exported detector.

    The export has folded every norm into the convolution before it. Here each norm gets back the statistics of its
    input over `pixels` and the gain that undoes them, so that the network answers as the file does and training
    starts from norms that fit their batches.

    Args:
        network: of the width of the exported one; changed in place and left in evaluation mode.
        path: what `export.export_detector` wrote.
        pixels: (n, 3, height, width) float, BGR 0..255, a training batch.

    Raises:
        RestartError: the file does not hold this network's layers.
    """
    stored = onnx.load(path)
    weights: _Weights = {weight.name: np.asarray(numpy_helper.to_array(weight)) for weight in stored.graph.initializer}
    for name, convolution, norm in _layers(network):
        try:
            weight, bias = (
                torch.from_numpy(np.array(weights[f"{name}.{part}"], dtype=np.float32)) for part in ("weight", "bias")
            )
        except KeyError as error:
            raise RestartError(f"{path} has no layer {name}") from error
        if weight.shape != convolution.weight.shape:
            raise RestartError(f"{path}: {name} has the shape {tuple(weight.shape)}")
        with torch.no_grad():
            convolution.weight.copy_(weight / (PIXEL_SCALE if name == "stem" else 1))
            if norm is None:
                assert convolution.bias is not None
                convolution.bias.copy_(bias)
            else:
                _pass_through(norm, bias)
    _settle_norms(network, pixels)


def earlier_training(path: Path) -> dict[str, float]:
    """Steps and seconds that an exported detector's manifest says it was trained for, zero where there is none."""
    manifest = path.with_suffix(".json")
    if not manifest.exists():
        return {"steps": 0.0, "seconds": 0.0}
    training = ModelManifest.model_validate_json(manifest.read_text()).training
    before = training.get("earlier_stages", {"steps": 0, "minutes": 0.0})
    return {
        "steps": float(training.get("steps", 0)) + float(before["steps"]),
        "seconds": 60.0 * (float(training.get("minutes", 0.0)) + float(before["minutes"])),
    }


def _layers(network: FaceNetwork) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """Every convolution with the name that the export gives it and the norm behind it."""
    yield "stem", network.stem[0], network.stem[1]  # type: ignore[misc]
    units: list[tuple[str, nn.Module]] = [("stem_unit", network.stem[3]), ("widen", network.widen)]
    for stage in ("stage4", "stage8", "stage16", "stage32"):
        units += [(f"{stage}.{index}", unit) for index, unit in enumerate(getattr(network, stage))]
    for group in ("lateral", "shared"):
        units += [(f"{group}{stride}", unit) for stride, unit in zip(STRIDES, getattr(network, group), strict=True)]
    for head in HEADS:
        heads: list[nn.Module] = list(network.heads[head])  # type: ignore[arg-type]
        units += [(f"{head}_{stride}", unit) for stride, unit in zip(STRIDES, heads, strict=True)]
    for name, unit in units:
        layers: list[nn.Module] = list(unit)  # type: ignore[call-overload]
        yield f"{name}.mix", layers[0], None  # type: ignore[misc]
        yield f"{name}.look", layers[1], layers[2] if len(layers) > 2 else None  # type: ignore[misc]


def _pass_through(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Let a norm add `bias` and do nothing else."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)


@torch.no_grad()
def _settle_norms(network: FaceNetwork, pixels: Tensor) -> None:
    """Give pass-through norms the statistics of their inputs without changing what the network answers."""

    def settle(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3), correction=0)
        module.bias.add_(mean)
        module.weight.copy_((variance + module.eps).sqrt())
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)

    network.eval()
    hooks = [m.register_forward_pre_hook(settle) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
