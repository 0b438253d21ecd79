"""The bundled mask classifier, as an attribute network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import CROP_SIDE_PX, ContractError, ModelManifest, Preprocessing, read_manifest
from service.domain import MASK_WORN_FROM
from service.vision.attributes.manifest import AlignedCrop, AttributeManifest, Pixels, ScoreReading
from service.vision.attributes.network import AttributeNetwork
from service.vision.attributes.views import aligned_view, network_input

INPUT_SIDE_PX = CROP_SIDE_PX // 2

_NORMALISATION = Preprocessing()
_PIXELS = Pixels(colour_order="RGB", mean=_NORMALISATION.mean, scale=_NORMALISATION.scale)


def mask_input(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network reads: crops at half their size, normalised as for the embedding network.

    Args:
        crops: (n, 112, 112, 3) uint8, BGR.

    Returns:
        (n, 3, 56, 56) float32, RGB, contiguous.

    Raises:
        ContractError: wrong shape or type.
    """
    return network_input(_halved(crops), _PIXELS)


def _halved(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        raise ContractError(f"crops must be uint8 of shape (n, 112, 112, 3), not {crops.dtype} of {crops.shape}")
    return np.stack([aligned_view(crop, INPUT_SIDE_PX) for crop in crops])


class OnnxMaskNetwork(AttributeNetwork):
    """A mask classifier that `model_training` made; its manifest is that of a model, and says nothing of its input.

    Args:
        model_path: ONNX file with its manifest beside it.

    Raises:
        ContractError: file and manifest do not fit each other, or it is no mask classifier.
    """

    def __init__(self, model_path: Path, *, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        model = read_manifest(model_path)
        if model.role != "mask-classifier":
            raise ContractError(f"{model_path} is not a mask classifier")
        super().__init__(model_path, _described(model), providers=providers)

    def probabilities(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n,) float32 in [0, 1]: how likely each face wears a mask."""
        return np.asarray(self._rows(_halved(crops))["mask"][:, 0], dtype=np.float32)


def _described(model: ModelManifest) -> AttributeManifest:
    return AttributeManifest(
        format=1,
        name=model.name,
        file=model.file,
        sha256=model.sha256,
        licence=model.licence,
        crop=AlignedCrop(kind="aligned", side_px=INPUT_SIDE_PX),
        pixels=_PIXELS,
        readings=(
            ScoreReading(kind="score", name="mask", classes=1, numbers="probabilities", threshold=MASK_WORN_FROM),
        ),
    )
