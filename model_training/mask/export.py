"""From a trained mask classifier to the ONNX file that the service runs, checked against PyTorch, and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_training.mask.network import MaskNetwork, MaskProbability
from model_training.mask.recipe import MaskRecipe
from model_training.shipping.export import ParityError, write_onnx
from service.contract import CROP_SIDE_PX, ModelManifest, sha256_of_file
from service.vision.attributes.mask import INPUT_SIDE_PX, OnnxMaskNetwork, mask_input

_PARITY_TOLERANCE = 1e-5


def export_mask(
    network: MaskNetwork, recipe: MaskRecipe, path: Path, *, data: list[str], training: dict[str, Any]
) -> ModelManifest:
    """Write the ONNX file and its manifest, and hold it against PyTorch.

    Raises:
        ParityError: a probability differs by more than 1e-5; then no file is left.
    """
    shipped = MaskProbability(network).eval()
    write_onnx(shipped, torch.zeros(2, 3, INPUT_SIDE_PX, INPUT_SIDE_PX), "probability", path)
    manifest = ModelManifest(
        name=recipe.name,
        role="mask-classifier",
        file=path.name,
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
        parameters=sum(p.numel() for p in shipped.parameters()),
        licence=(
            "Apache-2.0 for the weights as a work; trained on pictures of research data sets, whose terms its users "
            "check for themselves"
        ),
        teacher="none: trained from scratch",
        data=data,
        training=training,
    )
    path.with_suffix(".json").write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n")
    _check(shipped, path)
    return manifest


def _check(shipped: MaskProbability, path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (16, CROP_SIDE_PX, CROP_SIDE_PX, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = shipped(torch.from_numpy(mask_input(crops))).numpy()
    difference = float(np.abs(OnnxMaskNetwork(path).probabilities(crops) - expected).max())
    if difference > _PARITY_TOLERANCE:
        path.unlink()
        path.with_suffix(".json").unlink()
        raise ParityError(f"probabilities of PyTorch and onnxruntime differ by {difference:.1e}")
