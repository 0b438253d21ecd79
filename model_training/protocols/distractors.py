"""Faces of others that a gallery is filled with: of pictures, or drawn from a density fitted to real embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from model_training.protocols.density import EmbeddingModel, Sampler
from model_training.protocols.embedding import Vectors

_CHUNK_ROWS = 8_192


class Distractors(Protocol):
    """A supply of faces that nobody's probe shows.

    Attributes:
        kind: `pictures` or `sampled`, which every figure made with them says.
        available: how many there are.
    """

    kind: str
    available: int

    def drawn(self, count: int, draw: int) -> Iterator[Vectors]:
        """Chunks, (k, d) of unit length and `count` rows in all; another selection for another `draw`."""


class PictureDistractors:
    """Embeddings of real pictures, (n, d) of unit length."""

    kind = "pictures"

    def __init__(self, vectors: Vectors, seed: int = 0) -> None:
        self._vectors = vectors
        self._seed = seed
        self.available = len(vectors)

    def drawn(self, count: int, draw: int) -> Iterator[Vectors]:
        """See `Distractors`.

        Raises:
            ValueError: there are not as many.
        """
        if count > self.available:
            raise ValueError(f"{count} distractors wanted of {self.available} pictures")
        chosen = np.random.default_rng([self._seed, draw]).permutation(self.available)[:count]
        for start in range(0, count, _CHUNK_ROWS):
            yield self._vectors[chosen[start : start + _CHUNK_ROWS]]


class SampledDistractors:
    """One face each of persons who do not exist, drawn when asked for and never kept.

    Args:
        model: fitted to embeddings of the network that is measured.
        most: how many may be asked for.
    """

    kind = "sampled"

    def __init__(self, model: EmbeddingModel, most: int, seed: int = 0) -> None:
        self._sampler = Sampler(model)
        self._seed = seed
        self.available = most

    def drawn(self, count: int, draw: int) -> Iterator[Vectors]:
        """See `Distractors`."""
        for start in range(0, count, _CHUNK_ROWS):
            rng = np.random.default_rng([self._seed, draw, start])
            yield self._sampler.strangers(rng, min(_CHUNK_ROWS, count - start))
