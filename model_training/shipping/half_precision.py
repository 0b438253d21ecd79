"""A shipped student in 16-bit floating point: half the size, the same answers, and fast where the processor has it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from model_training.data.faces import AlignedFaces
from model_training.shipping.export import ParityError, embed_faces

_COMPARED = 256
_LEAST_COSINE = 0.9999


def halve(model: Path, faces: AlignedFaces, out: Path, *, seed: int = 0) -> float:
    """Write the model with 16-bit weights and arithmetic; input and output stay as they are.

    Args:
        model: float32 ONNX with its manifest.
        faces: to compare both models on.
        out: where it goes.
        seed: of the choice of faces.

    Returns:
        Least cosine between both models' embeddings of a face.

    Raises:
        ParityError: it is below 0.9999; nothing is written.
        ValueError: there are no faces.
    """
    if not len(faces.crops):
        raise ValueError("halving needs faces to compare on")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(faces.crops))[:_COMPARED])
    compared = faces.only(chosen.tolist())
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / out.name
        onnx.save(convert_float_to_float16(onnx.load(str(model)), keep_io_types=True), str(made))
        cosine = float((embed_faces(model, compared) * embed_faces(made, compared)).sum(axis=1).min())
        if cosine < _LEAST_COSINE:
            raise ParityError(f"16-bit embeddings have a cosine of {cosine:.5f} to those they stand for")
        out.write_bytes(made.read_bytes())
    return cosine
