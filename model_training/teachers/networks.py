"""Frozen networks that label views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_training.backbones.stages import Backbone
from service.contract import Preprocessing, to_network_input
from service.vision.runtime import onnxruntime


class Teacher(Protocol):
    """Labels crops with raw embeddings."""

    name: str
    dimension: int

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""


@dataclass(frozen=True)
class PixelFormat:
    """How a network wants its pixels: `(value - mean) * scale` of bytes in a colour order.

    `PixelFormat(0, 1)` is for networks that normalise inside.
    """

    mean: float = 127.5
    scale: float = 0.0078125
    colour_order: Literal["RGB", "BGR"] = "RGB"

    def of_rgb(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 3, h, w) RGB values in 0..255 to the network's input."""
        ordered = values[:, ::-1] if self.colour_order == "BGR" else values
        return np.ascontiguousarray((ordered - np.float32(self.mean)) * np.float32(self.scale))

    def of_crops(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to the network's input."""
        return self.of_rgb(to_network_input(crops, Preprocessing(mean=0.0, scale=1.0)))


RAW_PIXELS = PixelFormat(mean=0.0, scale=1.0)


def providers() -> list[str]:
    """Where onnxruntime runs a network: on a GPU where its package and the machine have one."""
    available = onnxruntime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


class OnnxTeacher:
    """Any ONNX face network with one image input and one embedding output, for one face at a time or many.

    Args:
        path: the network.
        pixels: how it wants them.
        threads: intra-op threads.
    """

    def __init__(self, path: Path, pixels: PixelFormat, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers())
        described = self._session.get_inputs()[0]
        self._input = described.name
        self._pixels = pixels
        # Some are exported for a fixed number of faces.
        self._batch = described.shape[0] if isinstance(described.shape[0], int) else None
        self.name = path.name
        self.dimension = int(self._session.get_outputs()[0].shape[1])

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""
        pixels = self._pixels.of_crops(crops)
        if self._batch is None:
            return self._run(pixels)
        missing = -len(pixels) % self._batch
        padded = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.float32)])
        parts = [self._run(padded[start : start + self._batch]) for start in range(0, len(padded), self._batch)]
        return np.concatenate(parts)[: len(pixels)]

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._session.run(None, {self._input: pixels})[0], dtype=np.float32)


class TorchTeacher:
    """A network in PyTorch, in bfloat16 where `bf16`; on recent CPUs far faster than onnxruntime with PReLU.

    Its labels differ from the float32 ones by a cosine of under 0.001, a hundredth of the student's own error.
    """

    def __init__(self, network: Backbone, name: str, *, bf16: bool = True, compiled: bool = True) -> None:
        network = network.eval().to(memory_format=torch.channels_last)
        self._run: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False) if compiled else network
        self._bf16 = bf16
        self.name = name
        self.dimension = network.dimension

    @torch.no_grad()
    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32, not normalised."""
        pixels = torch.from_numpy(to_network_input(crops, Preprocessing())).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            labels: NDArray[np.float32] = self._run(pixels).float().numpy()
            return labels
