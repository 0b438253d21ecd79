"""A shipped student in 8-bit integers: smaller by three quarters, and faster where the processor multiplies bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from model_training.data.faces import AlignedFaces
from model_training.shipping.export import ParityError, embed_faces, write_onnx
from model_training.training.equalising import equalise
from model_training.training.exported import ExportError, load_exported
from service.contract import Preprocessing, to_network_input

_CALIBRATION_FACES = 128
# Of a layer's values, the share that its range holds. The few beyond it would cost all others a bit of resolution.
_PERCENTILE = 99.999
# Faces that both models are compared on.
_COMPARED_FACES = 512
_BATCH = 16
# Convolutions at the start, over the most pixels and the fewest channels: integers are slower there than floats.
_FIRST_IN_FLOATS = 2
# At the end, the head's, over the fewest pixels.
_HEAD_CONVOLUTIONS = 2
# Below this the embeddings have moved by more than the pictures of one person differ.
_LEAST_MEAN_COSINE = 0.98


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Network inputs of some faces, a few at a time."""

    def __init__(self, crops: NDArray[np.uint8], input_name: str) -> None:
        self._inputs: Iterator[dict[str, NDArray[np.float32]]] = iter(
            {input_name: to_network_input(crops[start : start + _BATCH], Preprocessing())}
            for start in range(0, len(crops), _BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._inputs, None)


def quantise(model: Path, faces: AlignedFaces, out: Path, *, head_in_floats: bool = True, seed: int = 0) -> float:
    """Write the model with 8-bit weights, a scale a channel, and 8-bit activations, whose ranges real faces decide.

    Static quantisation in pairs of quantise and dequantise, which onnxruntime fuses into integer convolutions; the two
    of the stem stay in floating point, which is faster, and so does the embedding's matrix. The two after the last
    stage, where rounding costs most and floats little time, may stay too. A MobileFaceNet's channels are equalised
    first. Integers need ReLU: PReLU stays in floating point, and the detour makes the network slower than it was.

    Args:
        model: float32 ONNX with its manifest.
        faces: training faces, more than are calibrated on, so that others are left to compare on.
        out: where it goes.
        head_in_floats: whether the convolutions after the last stage stay in floating point.
        seed: of the choice of faces.

    Returns:
        Mean cosine between both models' embeddings of the faces that did not calibrate.

    Raises:
        ParityError: it is below 0.98; nothing is written.
        ValueError: there are too few faces.
    """
    count = min(_CALIBRATION_FACES, len(faces.crops) // 2)
    if count < 1:
        raise ValueError("quantising needs faces to calibrate on, and others to compare on")
    order = np.random.default_rng(seed).permutation(len(faces.crops))
    chosen, others = np.sort(order[:count]), np.sort(order[count : count + _COMPARED_FACES])
    with tempfile.TemporaryDirectory() as folder:
        equal, prepared, made = (Path(folder) / name for name in ("equal.onnx", "prepared.onnx", out.name))
        _write_equalised(model, np.asarray(faces.crops[chosen]), equal)
        # Folds what can be folded and infers shapes: the quantiser sees more of the graph then.
        quant_pre_process(str(equal), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            _Faces(np.asarray(faces.crops[chosen]), "input"),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _PERCENTILE},
            nodes_to_exclude=_in_floats(prepared, head=head_in_floats),
        )
        rest = faces.only(others.tolist())
        cosine = float((embed_faces(model, rest) * embed_faces(made, rest)).sum(axis=1).mean())
        if cosine < _LEAST_MEAN_COSINE:
            raise ParityError(f"8-bit embeddings have a mean cosine of {cosine:.4f} to those they stand for")
        out.write_bytes(made.read_bytes())
    return cosine


def _write_equalised(model: Path, crops: NDArray[np.uint8], out: Path) -> None:
    """A copy with equalised channels; as it is where it is no MobileFaceNet with ReLU."""
    try:
        network = load_exported(model)
    except ExportError:
        out.write_bytes(model.read_bytes())
        return
    pixels = torch.from_numpy(to_network_input(crops, Preprocessing()))
    equalise(network, pixels)
    write_onnx(network, pixels[:2], "embedding", out)


def _in_floats(model: Path, *, head: bool) -> list[str]:
    """Names of the first convolutions, of the head's if wanted, of what follows each, and of the embedding's matrix."""
    nodes = list(onnx.load(str(model)).graph.node)
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    if len(places) <= _FIRST_IN_FLOATS + _HEAD_CONVOLUTIONS:
        return []
    first = nodes[: places[_FIRST_IN_FLOATS]]
    last = nodes[places[-_HEAD_CONVOLUTIONS] :] if head else [node for node in nodes if node.op_type == "Gemm"]
    return [node.name for node in (*first, *last)]
