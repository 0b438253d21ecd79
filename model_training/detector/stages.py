"""Distillation stage by stage: the teacher looks at the very canvas that the student sees, and its maps are matched.

Labels that were moved with a picture say what the teacher thought of the original; here it answers for every cell of
every canvas, doubts included, and its maps on the way there teach each part of the student directly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from model_training.data import DataError
from model_training.detector.canvases import Image
from model_training.detector.losses import eiou_loss, landmark_terms
from model_training.detector.network import (
    HEADS,
    STRIDES,
    FaceNetwork,
    cell_grid,
    decode_boxes,
    decode_landmarks,
    flatten_maps,
)

# Stages of `FaceNetwork.stages`: four before a pooling, three that the heads read.
_STAGES = 4 + len(STRIDES)

# From this score on the teacher's box and landmarks at a cell are worth learning.
_GEOMETRY_SCORE = 0.25
# A map's quiet channels count, but not more than this share of the average one's variance allows.
_VARIANCE_FLOOR = 0.1
# Of maps with more values than this a picture only a part of the batch is compared: their cells tell much the same.
_LARGE_MAP = 30_000
_SCORE_WEIGHT, _BOX_WEIGHT = 1.0, 2.0

Batch = tuple[Tensor, ...]


class StageTeacher:
    """YuNet with its stages laid open.

    Args:
        path: the official ONNX file.
        threads: intra-op threads.

    Raises:
        DataError: the file's graph is not laid out as YuNet's is.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        model = onnx.load(path)
        stages, heads = _named_maps(model)
        self._outputs = stages + heads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        opened = _cut(model, self._outputs).SerializeToString()
        self._session = onnxruntime.InferenceSession(opened, options, providers=["CPUExecutionProvider"])

    def maps(self, pixels: NDArray[np.float32]) -> list[Tensor]:
        """Seven stages as `FaceNetwork.stages` has them, then each head's three maps, heads in the order of `HEADS`.

        Args:
            pixels: (n, 3, height, width) float32, BGR 0..255.
        """
        return [torch.from_numpy(np.asarray(v)) for v in self._session.run(self._outputs, {"input": pixels})]

    def label(self, canvases: Image, rows: NDArray[np.float32]) -> Batch:
        """A batch as `StageObjective` takes it, from (n, side, side, 3) uint8 and (n, faces, 15) float32."""
        pixels = np.ascontiguousarray(canvases.transpose(0, 3, 1, 2), dtype=np.float32)
        faceless = torch.from_numpy(~(rows[:, :, 14] > 0).any(axis=1))
        return (torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last), faceless, *self.maps(pixels))


def _named_maps(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of YuNet's stages and of its heads' maps, found by their place in the graph rather than by name."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    pooled = [node.input[0] for node in model.graph.node if node.op_type == "MaxPool"]
    heads, pyramid = [], []
    for head in HEADS:
        for stride in STRIDES:
            name = f"{head}_{stride}"
            while name in made_by and made_by[name].op_type != "Conv":
                name = made_by[name].input[0]
            if name not in made_by:
                raise DataError(f"the teacher has no output {head}_{stride} that a convolution makes")
            heads.append(name)
            if head == "cls":
                pyramid.append(made_by[made_by[name].input[0]].input[0])
    if len(pooled) + len(pyramid) != _STAGES:
        raise DataError(f"the teacher pools {len(pooled)} times, not 4")
    return pooled + pyramid, heads


def _cut(model: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """The part of a model that makes `outputs`, for any number of pictures: YuNet's own outputs take one at a time."""
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    pixels = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "height", "width"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    weights = [weight for weight in model.graph.initializer if weight.name in needed]
    graph = helper.make_graph(nodes[::-1], "stages", [pixels], values, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def stage_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of two maps (n, channels, rows, columns), each channel relative to the teacher's variance.

    Large maps are compared on an eighth of the pictures, or they would take most of a step.

    Returns:
        Scalar; 1 for a student that says the mean everywhere.
    """
    if teacher[0].numel() > _LARGE_MAP:
        share = max(1, len(teacher) // 8)
        student, teacher = student[:share], teacher[:share]
    variance = teacher.var(dim=(0, 2, 3))
    scale = variance + _VARIANCE_FLOOR * variance.mean() + 1e-6
    return (((student.float() - teacher) ** 2).mean(dim=(0, 2, 3)) / scale).mean()


class StageObjective(nn.Module):
    """A student and the loss that compares it with its teacher's maps.

    Args:
        network: trained in place; of the teacher's layout.
        side_px: of the canvases.
        landmark_weight: weight of the landmark error relative to the face's side.
    """

    def __init__(self, network: FaceNetwork, side_px: int, landmark_weight: float) -> None:
        super().__init__()
        self.network = network
        self._landmark_weight = landmark_weight
        cells, strides = cell_grid(side_px, side_px)
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, pixels: Tensor, faceless: Tensor, *maps: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            pixels: (n, 3, side, side) float, BGR 0..255.
            faceless: (n,) bool, canvases made without a face: there the teacher's doubts are known to be wrong.
            maps: as `StageTeacher.maps` gives them.

        Returns:
            (5,) float32: score, box, landmark and stage terms as they are weighted into the total, and the mean
            landmark error as a share of the face's side.
        """
        seen = self.network.stages(pixels)
        stages = torch.stack([stage_loss(ours, theirs) for ours, theirs in zip(seen, maps[:_STAGES], strict=True)])
        ours = flatten_maps(self.network.head_maps(seen[-len(STRIDES) :]))
        heads = maps[_STAGES:]
        levels = len(STRIDES)
        theirs = flatten_maps(
            {name: list(heads[index * levels : (index + 1) * levels]) for index, name in enumerate(HEADS)}
        )
        known = (~faceless).float()[:, None]
        quality, presence = theirs["cls"][..., 0].sigmoid(), theirs["obj"][..., 0].sigmoid() * known
        score = (quality * presence).sqrt()
        weight = torch.where(score >= _GEOMETRY_SCORE, score, torch.zeros_like(score))
        count = weight.sum().clamp(min=1.0)

        said_obj = functional.binary_cross_entropy_with_logits(ours["obj"][..., 0], presence, reduction="none")
        said_cls = functional.binary_cross_entropy_with_logits(ours["cls"][..., 0], quality, reduction="none")
        # Where nothing is, the teacher's `cls` is idle; it is followed a little so that it stays bounded.
        scores = (said_obj + said_cls * presence.clamp(min=0.02)).sum() / count
        boxes = decode_boxes(theirs["bbox"], self.cells, self.strides)
        predicted = decode_boxes(ours["bbox"], self.cells, self.strides)
        box = (eiou_loss(predicted, boxes) * weight).sum() / count
        sides = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).clamp(min=1.0).sqrt()
        landmark, error = landmark_terms(
            decode_landmarks(ours["kps"], self.cells, self.strides),
            decode_landmarks(theirs["kps"], self.cells, self.strides),
            sides,
            weight,
        )
        return torch.stack(
            [_SCORE_WEIGHT * scores, _BOX_WEIGHT * box, self._landmark_weight * landmark, stages.sum(), error]
        )
