"""A student's start: a network that was exported before."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor

from model_training.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetShape
from model_training.backbones.units import fold_batch_norms, set_slope_factor


class ExportError(ValueError):
    """A file is not a student that `export` wrote."""


def load_exported(path: Path) -> MobileFaceNet:
    """Read a MobileFaceNet with ReLU back from the ONNX that `export` made of it.

    Returns:
        The network in eval mode, without BatchNorms, its PReLU slopes 0.

    Raises:
        ExportError: the file holds something else.
    """
    try:
        graph = onnx.load(str(path)).graph
        arrays = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
        if any(node.op_type == "PRelu" for node in graph.node):
            raise ExportError(f"{path} has PReLU left; start from its run instead")
        network = fold_batch_norms(MobileFaceNet(_shape_of(arrays))).eval()
        state = network.state_dict()
        network.load_state_dict({name: arrays.get(name, torch.zeros_like(value)) for name, value in state.items()})
    except (DecodeError, KeyError, RuntimeError, OSError, ValueError) as error:
        raise ExportError(f"{path} is no exported MobileFaceNet: {error}") from error
    missing = [name for name in state if name not in arrays and ".act." not in name]
    if missing:
        raise ExportError(f"{path} lacks {missing[0]}")
    set_slope_factor(network, 0.0)
    return network


def _shape_of(arrays: dict[str, Tensor]) -> MobileFaceNetShape:
    def outputs(layer: str) -> int:
        return int(arrays[f"{layer}.conv.weight"].shape[0])

    depth = [sum(f"stages.{stage}.{block}.project.conv.weight" in arrays for block in range(100)) for stage in range(3)]
    return MobileFaceNetShape(
        blocks=(depth[0] - 1, depth[1] - 1, depth[2] - 1),
        channels=(outputs("stages.0.0.project"), outputs("stages.1.0.project"), outputs("stages.2.0.project")),
        expansions=tuple(outputs(f"stages.{stage}.{1 if depth[stage] > 1 else 0}.depthwise") for stage in range(3)),  # type: ignore[arg-type]
        transition_expansions=tuple(outputs(f"stages.{stage}.0.depthwise") for stage in range(3)),  # type: ignore[arg-type]
        stem_channels=outputs("stem"),
        head_channels=outputs("head"),
        dimension=int(arrays["fc.weight"].shape[0]),
    )
