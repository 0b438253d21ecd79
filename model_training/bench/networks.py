"""Networks to compare, by their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model_training.bench.defaults import MODELS
from model_training.bench.serving import Crop, Network, Vectors
from service.contract import ContractError, Preprocessing, normalise_embeddings, to_network_input
from service.vision.embedding import OnnxNetwork
from service.vision.runtime import onnxruntime

# What networks of others commonly expect of RGB in 0..255.
_NAMED = {"raw": (0.0, 1.0), "arcface": (127.5, 1 / 127.5)}


@dataclass(frozen=True)
class Compared:
    """A network, its file, and the name that figures give it."""

    name: str
    path: Path
    network: Network


class PlainNetwork:
    """An ONNX file without a manifest: one image input (n, 3, 112, 112), one embedding output.

    Args:
        path: the network.
        preprocessing: how it wants its pixels.
        threads: intra-op threads of one run.

    Raises:
        ContractError: the file cannot be loaded.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ContractError(f"{path} is no network that onnxruntime can load") from error
        self._input = self._session.get_inputs()[0].name
        self._preprocessing = preprocessing

    def embed(self, crops: Crop) -> Vectors:
        """(n, 112, 112, 3) uint8 BGR to (n, d) float32 of unit length."""
        pixels = to_network_input(crops, self._preprocessing)
        return normalise_embeddings(np.asarray(self._session.run(None, {self._input: pixels})[0], dtype=np.float32))


def open_networks(described: Sequence[str] | None, *, threads: int = 1) -> list[Compared]:
    """Networks under different names; the shipped student where none is given.

    Raises:
        ContractError: one cannot be opened, or is given twice.
    """
    opened = [open_network(each, threads=threads) for each in described or [str(MODELS / "student.onnx")]]
    if len({each.path.resolve() for each in opened}) < len(opened):
        raise ContractError("the same network is given twice")
    stems = [each.name for each in opened]
    return [
        replace(each, name=str(each.path.with_suffix(""))) if stems.count(each.name) > 1 else each for each in opened
    ]


def open_network(described: str, *, threads: int = 1) -> Compared:
    """A network by its path, or by `path@preprocessing` where no manifest says how it wants its pixels.

    Args:
        described: preprocessing is `raw` (RGB in 0..255), `arcface` ((RGB - 127.5) / 127.5), or `mean,scale`.

    Raises:
        ContractError: no such preprocessing, or the file cannot be loaded.
    """
    if "@" not in described:
        return Compared(Path(described).stem, Path(described), OnnxNetwork(Path(described), threads=threads))
    path, preprocessing = path_and_preprocessing(described)
    return Compared(path.stem, path, PlainNetwork(path, preprocessing, threads=threads))


def path_and_preprocessing(described: str) -> tuple[Path, Preprocessing]:
    """The parts of `path@preprocessing`, see `open_network`. Raises ContractError."""
    path, _, how = described.rpartition("@")
    try:
        mean, scale = _NAMED.get(how) or (float(part) for part in how.split(","))
    except ValueError as error:
        raise ContractError(f"preprocessing is raw, arcface or MEAN,SCALE, not {how!r}") from error
    return Path(path), Preprocessing(mean=mean, scale=scale)
