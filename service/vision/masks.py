"""Whether faces wear masks, by a small network on their aligned crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import CROP_SIDE_PX, ContractError, ModelManifest, Preprocessing, read_manifest
from service.vision.batching import MicroBatcher
from service.vision.runtime import onnxruntime, session_options

INPUT_SIDE_PX = CROP_SIDE_PX // 2


def mask_input(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network reads: crops at half their size, normalised as for the embedding network.

    Args:
        crops: (n, 112, 112, 3) uint8, BGR.

    Returns:
        (n, 3, 56, 56) float32, RGB, contiguous.

    Raises:
        ContractError: wrong shape or type.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        raise ContractError(f"crops must be uint8 of shape (n, 112, 112, 3), not {crops.dtype} of {crops.shape}")
    size = (INPUT_SIDE_PX, INPUT_SIDE_PX)
    halved = np.empty((len(crops), INPUT_SIDE_PX, INPUT_SIDE_PX, 3), np.uint8)
    for crop, half in zip(crops, halved, strict=True):
        cv2.resize(crop, size, dst=half, interpolation=cv2.INTER_AREA)
    planar = np.ascontiguousarray(halved[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
    normalisation = Preprocessing()
    planar -= normalisation.mean
    planar *= normalisation.scale
    return planar


class OnnxMaskNetwork:
    """A mask classifier as a plain function of crops; safe to call from several threads at once.

    Args:
        model_path: ONNX file with its manifest beside it.

    Raises:
        ContractError: file and manifest do not fit each other, or it is no mask classifier.
    """

    def __init__(self, model_path: Path) -> None:
        self.manifest: ModelManifest = read_manifest(model_path)
        if self.manifest.role != "mask-classifier":
            raise ContractError(f"{model_path} is not a mask classifier")
        # The network is too small to be shared among threads.
        self._session = onnxruntime.InferenceSession(
            str(model_path), session_options(threads=1), providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def probabilities(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n,) float32 in [0, 1]: how likely each face wears a mask."""
        answers = self._session.run(None, {self._input: mask_input(crops)})[0]
        return np.asarray(answers, dtype=np.float32).reshape(len(crops))


class BatchedMaskClassifier:
    """MaskClassifier port: requests share runs of one network."""

    def __init__(
        self,
        network: OnnxMaskNetwork,
        *,
        max_batch: int = 64,
        max_pending: int = 512,
        deadline_s: float = 5.0,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._network = network
        self._batcher: MicroBatcher[NDArray[np.uint8], float] = MicroBatcher(
            self._run, max_batch=max_batch, max_pending=max_pending, deadline_s=deadline_s, on_batch=on_batch
        )

    async def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> list[float]:
        """See the port."""
        return await self._batcher.submit(crops) if crops else []

    async def close(self) -> None:
        """Fail what waits and end the worker thread."""
        await self._batcher.close()

    def _run(self, crops: list[NDArray[np.uint8]]) -> list[float]:
        return [float(value) for value in self._network.probabilities(np.stack(crops))]
