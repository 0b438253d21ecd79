"""An ONNX face network whose intermediate maps can be read, so that a student's stages can be held against them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, ValueInfoProto
from torch import Tensor

from model_training.backbones.stages import Backbone, Stage
from model_training.teachers.networks import PixelFormat, providers
from service.contract import CROP_SIDE_PX, Preprocessing
from service.vision.runtime import onnxruntime

# Smaller maps are the last one on its way to an embedding.
_LEAST_SIDE_PX = 7


class StageError(ValueError):
    """A network's stages cannot be told, or the ones asked for are none."""


class OnnxBackbone(Backbone):
    """See `Backbone`; frozen: no gradient flows through it.

    Its input is normalised as the contract says, whatever the network itself wants.

    Args:
        path: a network with one image input and one embedding output.
        pixels: how it wants them.
        stages: names of the values to expose; by default the last sum of each resolution, where residual blocks end, or
            where a resolution has no sum its last value.

    Raises:
        StageError: a value is no square map, or there are none.
    """

    def __init__(self, path: Path, pixels: PixelFormat, stages: Sequence[str] = ()) -> None:
        super().__init__()
        model = onnx.load(str(path))
        _fix_input(model.graph)
        maps = {value.name: value for value in _square_maps(onnx.shape_inference.infer_shapes(model, data_prop=True))}
        chosen = list(stages) or stage_values(model.graph, maps)
        absent = next((name for name in chosen if name not in maps), None)
        if absent is not None or not chosen:
            raise StageError(f"{path.name}: no square map is named {absent}" if absent else f"{path.name} has no maps")
        self._stages = tuple(Stage(name, _channels(maps[name]), CROP_SIDE_PX // _side(maps[name])) for name in chosen)
        self._outputs = [model.graph.output[0].name, *chosen]
        exposed = {output.name for output in model.graph.output}
        model.graph.output.extend(maps[name] for name in chosen if name not in exposed)
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers())
        self._input = self._session.get_inputs()[0].name
        self._pixels = pixels
        with torch.no_grad():
            self.dimension = self.forward(torch.zeros(1, 3, CROP_SIDE_PX, CROP_SIDE_PX)).shape[1]

    def __deepcopy__(self, _: object) -> OnnxBackbone:
        """Itself: it never changes, and a session cannot be copied."""
        return self

    def feature_stages(self) -> tuple[Stage, ...]:
        """See `Backbone`."""
        return self._stages

    @torch.compiler.disable
    def forward_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Backbone`."""
        contract = Preprocessing()
        values = x.detach().float().cpu() / contract.scale + contract.mean
        wanted = self._pixels.of_rgb(np.ascontiguousarray(values.numpy()))
        found = self._session.run(self._outputs, {self._input: wanted})
        embedding, *maps = (torch.from_numpy(np.asarray(value, dtype=np.float32)).to(x.device) for value in found)
        return embedding, maps


def stage_values(graph: GraphProto, maps: dict[str, ValueInfoProto]) -> list[str]:
    """Names of the values where stages end, from the finest to the coarsest."""
    ends: dict[int, tuple[bool, str]] = {}
    for node in graph.node:
        for name in node.output:
            if name not in maps:
                continue
            side = _side(maps[name])
            is_sum = node.op_type in ("Add", "Sum")
            # A strided block begins at the resolution before: what follows the last sum there is no stage's end.
            if _LEAST_SIDE_PX <= side < CROP_SIDE_PX and (is_sum or not ends.get(side, (False, ""))[0]):
                ends[side] = (is_sum, name)
    return [ends[side][1] for side in sorted(ends, reverse=True)]


def _fix_input(graph: GraphProto) -> None:
    """Give the input its size, from which the sizes of all maps follow, and leave the number of faces open."""
    shape = graph.input[0].type.tensor_type.shape
    if len(shape.dim) != 4:
        raise StageError(f"the input {graph.input[0].name} is no stack of pictures")
    for place, size in ((1, 3), (2, CROP_SIDE_PX), (3, CROP_SIDE_PX)):
        shape.dim[place].dim_value = size
    shape.dim[0].dim_param = "n"
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]


def _square_maps(model: ModelProto) -> Iterator[ValueInfoProto]:
    for value in (*model.graph.value_info, *model.graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) == 4 and dims[1] > 0 and dims[2] == dims[3] > 0 and CROP_SIDE_PX % dims[2] == 0:
            yield value


def _channels(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.shape.dim[1].dim_value)


def _side(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.shape.dim[2].dim_value)
