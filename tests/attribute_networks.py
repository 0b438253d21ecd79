"""Tiny attribute networks in the layouts of public ones, whose answers follow from the mean colour of what they see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from service.contract import sha256_of_file

SILENT_FACE_LABELS = ("spoof", "live", "unsure")


def write_network(
    path: Path,
    weights: ArrayLike,
    bias: ArrayLike,
    *,
    side_px: int,
    batch: int | str = "n",
    output: str = "fc1",
    then: str = "Identity",
    one_inside: bool = False,
) -> Path:
    """A network whose answer is `mean of each channel @ weights + bias`, on (batch, 3, side, side) float32.

    Args:
        weights: (3, m), in the order in which the channels come.
        bias: (m,).
        then: an operator that each number of the answer goes through.
        one_inside: reshape to one face, whatever `batch` promises, as some exports do.
    """
    weights, bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["sums"]),
            helper.make_node("Reshape", ["sums", "shape"], ["shaped"]),
            helper.make_node(then, ["shaped"], [output]),
        ],
        "means",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side_px, side_px])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, weights.shape[1]])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([1 if one_inside else -1, weights.shape[1]], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def write_manifest(path: Path, **members: Any) -> Path:
    """The manifest beside a network; the network's path again."""
    described = {"format": 1, "name": path.stem, "file": path.name, "sha256": sha256_of_file(path), **members}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def red_masks(folder: Path) -> Sequence[Path]:
    """One network, `reds`: a face wears a mask as far as its aligned crop is red."""
    path = write_network(folder / "reds.onnx", [[1.0], [0.0], [0.0]], [0.0], side_px=112)
    write_manifest(
        path,
        crop={"kind": "aligned", "side_px": 112},
        pixels={"colour_order": "RGB", "scale": 1 / 255},
        readings=[{"kind": "score", "name": "mask", "numbers": "probabilities"}],
    )
    return [path]


def gender_and_age(folder: Path) -> Path:
    """In the layout of InsightFace's `genderage.onnx`: RGB 0..255 of 96 x 96; two logits, and the age in hundreds.

    Female by a hundredth of a logit for each level of red, male for each of blue, as old as there are levels of green.
    """
    # Rows are red, green and blue.
    weights = [[0.01, 0.0, 0.0], [0.0, 0.0, 0.01], [0.0, 0.01, 0.0]]
    path = write_network(folder / "genderage.onnx", weights, [0.0] * 3, side_px=96)
    return write_manifest(
        path,
        crop={"kind": "box", "side_px": 96, "scale": 1.5},
        pixels={"colour_order": "RGB"},
        readings=[
            {"kind": "classes", "name": "gender", "labels": ["female", "male"], "numbers": "logits"},
            {"kind": "value", "name": "age", "first": 2, "factor": 100, "unit": "years"},
        ],
    )


def liveness(folder: Path, name: str, scale: float, *, per_level: float = 0.02) -> Path:
    """In the layout of Silent-Face's networks: BGR 0..255 of 80 x 80, one at a time; three logits, the second for live.

    Live by `per_level` of a logit for each level of blue, which comes first.
    """
    weights = [[0.0, per_level, 0.0], [0.0] * 3, [0.0] * 3]
    path = write_network(folder / f"{name}.onnx", weights, [0.0] * 3, side_px=80, batch=1, output="logits")
    return write_manifest(
        path,
        crop={"kind": "box", "side_px": 80, "scale": scale, "shape": "box", "outside": "inside"},
        pixels={"colour_order": "BGR"},
        readings=[{"kind": "score", "name": "liveness", "classes": 3, "index": 1, "numbers": "logits"}],
    )
