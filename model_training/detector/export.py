"""From a trained network to the ONNX file that `cv2.FaceDetectorYN` runs, checked against PyTorch, and its manifest."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model_training.detector.network import (
    HEADS,
    LEAST_SAY,
    PIXEL_SCALE,
    STRIDES,
    FaceNetwork,
    SeparableUnit,
    neighbour_steps,
)
from service.contract import ModelManifest, sha256_of_file

# The operator set of the official file: every OpenCV that has FaceDetectorYN reads it.
_OPSET = 11
_IR_VERSION = 7
_PARITY_SIZES = ((160, 160), (320, 224), (96, 416), (640, 640))
_PARITY_TOLERANCE = 2e-3

# The score from which on the service reports a face.
SERVED_THRESHOLD = 0.6


class ExportError(RuntimeError):
    """The exported file does not answer as the network does."""


def with_scores_lowered(network: FaceNetwork, threshold: float) -> FaceNetwork:
    """A copy whose score of 0.6 means what `threshold` meant before, so that the service's default suits it.

    Both factors of the score are lowered alike on the logit scale, which keeps every ranking of equal-shaped scores.
    They also weigh neighbours' landmarks, which therefore move a little.

    Raises:
        ValueError: the threshold is not inside (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"a score threshold lies inside (0, 1), {threshold} does not")
    shift = math.log(threshold / (1 - threshold)) - math.log(SERVED_THRESHOLD / (1 - SERVED_THRESHOLD))
    lowered = copy.deepcopy(network)
    with torch.no_grad():
        for name in ("cls", "obj"):
            for head in lowered.heads[name]:  # type: ignore[union-attr]
                head[1].bias -= shift
    return lowered


def output_names() -> list[str]:
    """The twelve outputs in YuNet's order."""
    return [f"{head}_{stride}" for head in HEADS for stride in STRIDES]


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of a convolution with the running statistics of the norm behind it folded in."""
    weight = convolution.weight.detach().double()
    bias = torch.zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
    bias = bias.double()
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = weight * gain[:, None, None, None]
        bias = (bias - norm.running_mean.double()) * gain + norm.bias.detach().double()
    return weight.float().numpy(), bias.float().numpy()


class _Graph:
    """Nodes and weights of an ONNX graph in the making; each method adds one layer and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if all(weight.name != name for weight in self.weights):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(
        self, source: str, name: str, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, scale: float = 1.0
    ) -> str:
        weight, bias = folded(layer, norm)
        inputs = [
            source,
            self.constant(f"{name}.weight", (weight * np.float32(scale)).astype(np.float32)),
            self.constant(f"{name}.bias", bias),
        ]
        pad, stride = int(layer.padding[0]), int(layer.stride[0])
        return self.node(
            "Conv",
            inputs,
            group=layer.groups,
            kernel_shape=list(layer.kernel_size),
            pads=[pad] * 4,
            strides=[stride] * 2,
            dilations=[1, 1],
        )

    def unit(self, source: str, name: str, unit: SeparableUnit) -> str:
        mixed = self.convolution(source, f"{name}.mix", unit[0], None)  # type: ignore[arg-type]
        if len(unit) == 2:
            return self.convolution(mixed, f"{name}.look", unit[1], None)  # type: ignore[arg-type]
        return self.node("Relu", [self.convolution(mixed, f"{name}.look", unit[1], unit[2])])  # type: ignore[arg-type]

    def units(self, source: str, name: str, stage: nn.Sequential) -> str:
        for index, unit in enumerate(stage):
            source = self.unit(source, f"{name}.{index}", unit)  # type: ignore[arg-type]
        return source

    def halved(self, source: str) -> str:
        return self.node("MaxPool", [source], kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)

    def doubled(self, source: str) -> str:
        region = self.constant("no_region", np.zeros(0, dtype=np.float32))
        scales = self.constant("double", np.array([1, 1, 2, 2], dtype=np.float32))
        return self.node(
            "Resize",
            [source, region, scales],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def agreed(self, landmarks: str, face: str, fit: str) -> str:
        """`network.agreed_landmarks`, with nothing but operators that even an old OpenCV broadcasts rightly."""
        say = self.node("Mul", [self.node("Sigmoid", [face]), self.node("Sigmoid", [fit])])
        copies = self.constant("say_for_all.weight", np.ones((10, 1, 1, 1), dtype=np.float32))
        least = self.constant("say_for_all.bias", np.full(10, LEAST_SAY, dtype=np.float32))
        say = self.node("Conv", [say, copies, least], kernel_shape=[1, 1])
        ones = self.constant("everyone", np.ones((10, 1, 3, 3), dtype=np.float32))
        steps = self.constant("steps", neighbour_steps().numpy())
        near: dict[str, Any] = {"group": 10, "kernel_shape": [3, 3], "pads": [1] * 4}
        said = self.node("Conv", [self.node("Mul", [say, landmarks]), ones], **near)
        total = self.node("Add", [said, self.node("Conv", [say, steps], **near)])
        return self.node("Div", [total, self.node("Conv", [say, ones], **near)])

    def flattened(self, source: str, channels: int, output: str, *, probability: bool) -> str:
        shape = self.constant(f"cells_by_{channels}", np.array([1, -1, channels], dtype=np.int64))
        last = self.node("Transpose", [source], perm=[0, 2, 3, 1])
        if not probability:
            return self.node("Reshape", [last, shape], output)
        return self.node("Sigmoid", [self.node("Reshape", [last, shape])], output)


def build_onnx(network: FaceNetwork) -> onnx.ModelProto:
    """The network as an ONNX model with YuNet's input and outputs, norms folded.

    Written node by node rather than traced: the graph is then exactly the layers, in an operator set that every OpenCV
    reads, whatever the exporter of the day makes of them.

    Returns:
        Input `input` (1, 3, height, width), BGR 0..255; outputs `cls_8` ... `kps_32`, each (1, cells, channels).
    """
    graph = _Graph()
    stem = network.stem
    first = graph.convolution("input", "stem", stem[0], stem[1], PIXEL_SCALE)  # type: ignore[arg-type]
    features = graph.unit(graph.node("Relu", [first]), "stem_unit", stem[3])  # type: ignore[arg-type]
    features = graph.units(graph.halved(features), "stage4", network.stage4)
    features = graph.halved(graph.unit(features, "widen", network.widen))
    level8 = graph.units(features, "stage8", network.stage8)
    level16 = graph.units(graph.halved(level8), "stage16", network.stage16)
    level32 = graph.units(graph.halved(level16), "stage32", network.stage32)
    lateral, shared = network.lateral, network.shared
    top = graph.unit(level32, "lateral32", lateral[2])  # type: ignore[arg-type]
    middle = graph.unit(graph.node("Add", [level16, graph.doubled(top)]), "lateral16", lateral[1])  # type: ignore[arg-type]
    bottom = graph.unit(graph.node("Add", [level8, graph.doubled(middle)]), "lateral8", lateral[0])  # type: ignore[arg-type]
    levels = [
        graph.unit(level, f"shared{stride}", unit)  # type: ignore[arg-type]
        for level, stride, unit in zip((bottom, middle, top), STRIDES, shared, strict=True)
    ]
    outputs = []
    maps: dict[str, str] = {}
    for head, channels in HEADS.items():
        for level, stride, unit in zip(levels, STRIDES, network.heads[head], strict=True):  # type: ignore[call-overload]
            name = f"{head}_{stride}"
            maps[name] = graph.unit(level, name, unit)
            if head == "kps":
                maps[name] = graph.agreed(maps[name], maps[f"obj_{stride}"], maps[f"cls_{stride}"])
            graph.flattened(maps[name], channels, name, probability=head in ("cls", "obj"))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "cells", channels]))
    pixels = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "shrinkface-detector", [pixels], outputs, graph.weights),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="shrinkface",
    )
    onnx.checker.check_model(model)
    return model


@torch.no_grad()
def torch_outputs(network: FaceNetwork, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
    """What the network answers for one picture (1, 3, height, width), named and shaped as the ONNX outputs."""
    network.eval()
    maps = network.level_maps(pixels)
    answers = {}
    for head in HEADS:
        for level, stride in zip(maps[head], STRIDES, strict=True):
            values = level.permute(0, 2, 3, 1).flatten(1, 2)
            answers[f"{head}_{stride}"] = (values.sigmoid() if head in ("cls", "obj") else values).numpy()
    return answers


def check_parity(network: FaceNetwork, path: Path) -> float:
    """Compare the file, run by OpenCV at several sizes, with the network.

    Returns:
        The largest difference over all outputs and sizes: probabilities, or strides.

    Raises:
        ExportError: it is above the tolerance, or OpenCV cannot run the file.
    """
    worst = 0.0
    rng = np.random.default_rng(0)
    for height, width in _PARITY_SIZES:
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)
        expected = torch_outputs(network, torch.from_numpy(pixels))
        try:
            runner = cv2.dnn.readNetFromONNX(str(path))
            runner.setInput(pixels, "input")
            answers = runner.forward(output_names())
        except cv2.error as error:
            raise ExportError(f"OpenCV cannot run {path} at {height} x {width}") from error
        for name, answer in zip(output_names(), answers, strict=True):
            worst = max(worst, float(np.abs(answer.reshape(expected[name].shape) - expected[name]).max()))
    if not worst <= _PARITY_TOLERANCE:
        raise ExportError(f"{path} differs from the network by {worst:.5f}")
    return worst


def export_detector(network: FaceNetwork, path: Path) -> float:
    """Write the ONNX file, replacing an older one only once the new one is checked.

    Returns:
        The difference that `check_parity` found.

    Raises:
        ExportError: the file does not answer as the network does; nothing is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.onnx")
    onnx.save(build_onnx(network), partial)
    try:
        difference = check_parity(network, partial)
    except ExportError:
        partial.unlink()
        raise
    partial.replace(path)
    return difference


def write_manifest(path: Path, *, data: list[str], training: dict[str, Any], metrics: dict[str, Any]) -> ModelManifest:
    """Write `<model>.json` beside an exported detector."""
    stored = onnx.load(path)
    manifest = ModelManifest(
        name=path.stem,
        role="detector",
        file=path.name,
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
        parameters=sum(
            int(np.prod(weight.dims)) for weight in stored.graph.initializer if weight.data_type == TensorProto.FLOAT
        ),
        licence=(
            "Apache-2.0 for the weights as a work; taught by a MIT-licensed network on pictures of research data sets, "
            "whose terms its users check for themselves"
        ),
        teacher="YuNet (face_detection_yunet_2026may.onnx, MIT)",
        data=data,
        training=training,
        metrics=metrics,
    )
    partial = path.with_suffix(".json.partial")
    partial.write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n")
    partial.replace(path.with_suffix(".json"))
    return manifest
