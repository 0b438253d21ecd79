"""The embedding network in onnxruntime, behind the micro-batcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError, ModelManifest, normalise_embeddings, read_manifest, to_network_input
from service.domain import InvalidEmbedding
from service.vision.batching import MicroBatcher
from service.vision.runtime import onnxruntime, session_options

Vector = NDArray[np.float32]
Crop = NDArray[np.uint8]


class OnnxNetwork:
    """An embedding network as a plain function of crops; safe to call from several threads at once.

    Args:
        model_path: ONNX file with its manifest beside it.
        threads: intra-op threads of one run.
        providers: onnxruntime execution providers, most wanted first.

    Raises:
        ContractError: file and manifest do not fit each other, or the network's output does not fit the manifest.
    """

    def __init__(
        self, model_path: Path, *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        self.manifest: ModelManifest = read_manifest(model_path)
        if self.manifest.role != "embedder" or self.manifest.preprocessing is None or self.manifest.space_id is None:
            raise ContractError(f"{model_path} is not an embedder")
        self._session = onnxruntime.InferenceSession(
            str(model_path), session_options(threads), providers=list(providers)
        )
        self._input = self._session.get_inputs()[0].name
        self._preprocessing = self.manifest.preprocessing
        self.space_id: str = self.manifest.space_id
        self.dimension = int(self._session.get_outputs()[0].shape[1])
        if self.dimension != self.manifest.dimension:
            raise ContractError(
                f"{model_path} gives {self.dimension} dimensions, its manifest says {self.manifest.dimension}"
            )

    def raw(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32 as the network gives it, not normalised."""
        pixels = to_network_input(crops, self._preprocessing)
        return np.asarray(self._session.run(None, {self._input: pixels})[0], dtype=np.float32)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32 of unit length.

        Raises:
            ContractError: wrong input, or a vector without direction.
        """
        return normalise_embeddings(self.raw(crops))


class BatchedEmbedder:
    """Embedder port: requests share runs of one network."""

    def __init__(
        self,
        network: OnnxNetwork,
        *,
        max_batch: int = 16,
        max_pending: int = 256,
        deadline_s: float = 5.0,
        workers: int = 1,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._network = network
        self._batcher: MicroBatcher[Crop, Vector] = MicroBatcher(
            self._run,
            max_batch=max_batch,
            max_pending=max_pending,
            deadline_s=deadline_s,
            workers=workers,
            on_batch=on_batch,
        )

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._network.dimension

    @property
    def space_id(self) -> str:
        """Name of the embedding space."""
        return self._network.space_id

    async def embed(self, crops: Sequence[Crop]) -> NDArray[np.float32]:
        """(n, dimension) float32 of unit length; see the port."""
        if not crops:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack(await self._batcher.submit(crops))

    async def close(self) -> None:
        """Fail what waits and end the worker threads."""
        await self._batcher.close()

    def _run(self, crops: list[Crop]) -> list[Vector | Exception]:
        outcomes: list[Vector | Exception] = []
        for row in self._network.raw(np.stack(crops)):
            try:
                outcomes.append(normalise_embeddings(row[None])[0])
            except ContractError:
                outcomes.append(InvalidEmbedding("the network found no direction for this face"))
        return outcomes
