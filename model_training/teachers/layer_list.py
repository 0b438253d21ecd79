"""A trained MobileFaceNet from named arrays and the list of its layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import AnnealedPReLU, ConvUnit

_UNIT_OPS = ("Convolution", "BatchNorm", "PReLU")


class LayerListError(ValueError):
    """A layer list and its weights do not describe a MobileFaceNet."""


def load_layer_list(weights_path: Path, layers_path: Path) -> MobileFaceNet:
    """Rebuild a MobileFaceNet in PyTorch from named arrays and the ordered list of layers.

    Args:
        weights_path: .npz of float arrays (opened without pickle).
        layers_path: JSON with `layers`, each with `op`, `inputs` and the names of its arrays.

    Returns:
        The network in eval mode. It reads normalised pixels, `(value - 127.5) / 128`.

    Raises:
        LayerListError: the list is not that of a MobileFaceNet, or an array is missing or misshapen.
    """
    layers = json.loads(layers_path.read_text())["layers"]
    with np.load(weights_path, allow_pickle=False) as archive:
        arrays = {name: torch.from_numpy(archive[name].astype(np.float32)) for name in archive.files}
    units = list(_units(layers))
    try:
        return _rebuilt(layers, units, arrays)
    except KeyError as error:
        raise LayerListError(f"the list or its arrays lack {error}") from error


def _rebuilt(
    layers: list[dict[str, Any]], units: list[dict[str, dict[str, Any]]], arrays: dict[str, Tensor]
) -> MobileFaceNet:
    network = MobileFaceNet(_shape_of(units, arrays)).eval()
    targets = [module for module in network.modules() if isinstance(module, ConvUnit)]
    if len(targets) != len(units):
        raise LayerListError(f"the list has {len(units)} convolutions, a MobileFaceNet of this shape {len(targets)}")
    with torch.no_grad():
        for target, unit in zip(targets, units, strict=True):
            _fill_unit(target, unit, arrays)
        dense = next((layer for layer in layers if layer["op"] == "FullyConnected"), None)
        if dense is None:
            raise LayerListError("the list has no fully connected layer")
        _copy(network.fc.weight, arrays, dense["weight"])
        _copy(network.fc.bias, arrays, dense.get("bias", "pre_fc1_bias"))
        _fill_norm(network.fc_bn, layers[-1], arrays)
    return network


def _units(layers: list[dict[str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """Group the list into convolutions with the BatchNorm and PReLU that follow each."""
    unit: dict[str, dict[str, Any]] = {}
    for layer in layers:
        if layer["op"] == "FullyConnected":
            break
        if layer["op"] not in _UNIT_OPS:
            continue
        if layer["op"] == "Convolution" and unit:
            yield unit
            unit = {}
        unit[layer["op"]] = layer
    if unit:
        yield unit


def _shape_of(units: list[dict[str, dict[str, Any]]], arrays: dict[str, Tensor]) -> MobileFaceNetShape:
    """Read depth and width off the convolutions: a strided depthwise one opens a stage."""
    outputs = [int(arrays[unit["Convolution"]["weight"]].shape[0]) for unit in units]
    strided = [i for i, unit in enumerate(units) if i > 0 and unit["Convolution"]["stride"] == [2, 2]]
    if len(strided) != 3:
        raise LayerListError(f"a MobileFaceNet has three strided stages, this list {len(strided)}")
    ends = [*(index - 1 for index in strided[1:]), len(units) - 2]
    blocks = tuple((end - start - 2) // 3 for start, end in zip(strided, ends, strict=True))
    return MobileFaceNetShape(
        blocks=blocks,  # type: ignore[arg-type]
        channels=tuple(outputs[i + 1] for i in strided),  # type: ignore[arg-type]
        expansions=tuple(outputs[i + 2] if b else outputs[i] for i, b in zip(strided, blocks, strict=True)),  # type: ignore[arg-type]
        transition_expansions=tuple(outputs[i] for i in strided),  # type: ignore[arg-type]
        stem_channels=outputs[0],
        head_channels=outputs[-1],
        dimension=int(arrays["fc1_weight"].shape[0]),
    )


def _fill_unit(target: ConvUnit, unit: dict[str, dict[str, Any]], arrays: dict[str, Tensor]) -> None:
    _copy(target.conv.weight, arrays, unit["Convolution"]["weight"])
    _fill_norm(target.bn, unit["BatchNorm"], arrays)
    if isinstance(target.act, AnnealedPReLU) != ("PReLU" in unit):
        raise LayerListError(f"{unit['Convolution']['name']}: activation where none is expected, or none where one is")
    if isinstance(target.act, AnnealedPReLU):
        _copy(target.act.weight, arrays, unit["PReLU"]["slope"])


def _fill_norm(norm: nn.Module, layer: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    norm.eps = float(layer["eps"])
    _copy(norm.weight, arrays, layer["gamma"])
    _copy(norm.bias, arrays, layer["beta"])
    assert norm.running_mean is not None and norm.running_var is not None
    _copy(norm.running_mean, arrays, layer["mean"])
    _copy(norm.running_var, arrays, layer["var"])


def _copy(target: Tensor, arrays: dict[str, Tensor], name: str) -> None:
    if name not in arrays:
        raise LayerListError(f"no array named {name}")
    if arrays[name].shape != target.shape:
        raise LayerListError(f"{name} has shape {tuple(arrays[name].shape)}, expected {tuple(target.shape)}")
    target.copy_(arrays[name])
