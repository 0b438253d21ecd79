"""Frozen networks that label views."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model_training.backbones.mobilefacenet import MobileFaceNet
from service.contract import Preprocessing, to_network_input
from service.vision.runtime import onnxruntime


class Teacher(Protocol):
    """Labels crops with raw embeddings."""

    name: str
    dimension: int

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""


class OnnxTeacher:
    """Any ONNX face network with one image input and one embedding output.

    Args:
        path: the network.
        preprocessing: how it wants its pixels; `raw_pixels` for one that reads RGB in 0..255.
        threads: intra-op threads.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._preprocessing = preprocessing
        self.name = path.name
        self.dimension = int(self._session.get_outputs()[0].shape[1])

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""
        pixels = to_network_input(crops, self._preprocessing)
        return np.asarray(self._session.run(None, {self._input: pixels})[0], dtype=np.float32)


class TorchTeacher:
    """A MobileFaceNet in PyTorch, in bfloat16 where `bf16`; on recent CPUs far faster than onnxruntime with PReLU.

    Its labels differ from the float32 ones by a cosine of under 0.001, a hundredth of the student's own error.
    """

    def __init__(self, network: MobileFaceNet, name: str, *, bf16: bool = True) -> None:
        self._run = torch.compile(network.eval().to(memory_format=torch.channels_last), dynamic=False)
        self._bf16 = bf16
        self.name = name
        self.dimension = network.shape.dimension

    @torch.no_grad()
    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""
        pixels = torch.from_numpy(to_network_input(crops, Preprocessing())).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            labels: NDArray[np.float32] = self._run(pixels).float().numpy()
            return labels


def raw_pixels() -> Preprocessing:
    """RGB in 0..255, for networks that normalise inside."""
    return Preprocessing(mean=0.0, scale=1.0)
