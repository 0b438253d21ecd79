"""Faces of others that a gallery is filled with: of pictures, or drawn from a density fitted to real embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.density import EmbeddingModel, Sampler, root, unit
from model_training.protocols.embedding import Embedded, Vectors

NOBODY = -1
_CHUNK_ROWS = 8_192
# Of the variance of faces, what is drawn anew around a real one. More, and there are too few lookalikes: with a third,
# LFW's one comparison in 10,000 reaches a cosine 0.02 lower than between real faces, with a tenth 0.006 lower.
_DRAWN_SHARE = 0.1

Labels = NDArray[np.int64]


class Faces(NamedTuple):
    """Distractors.

    Attributes:
        vectors: (k, d) of unit length.
        like: (k,) label of the person that each was drawn around, whose probes must not meet it; `NOBODY` mostly.
    """

    vectors: Vectors
    like: Labels


class Distractors(Protocol):
    """A supply of faces that nobody's probe shows.

    Attributes:
        kind: where they come from, which every figure made with them says.
        available: how many there are.
    """

    kind: str
    available: int

    def drawn(self, count: int, draw: int) -> Iterator[Faces]:
        """Chunks of `count` faces in all; another selection for another `draw`."""


class PictureDistractors:
    """Embeddings of real pictures, (n, d) of unit length."""

    kind = "pictures"

    def __init__(self, vectors: Vectors, seed: int = 0) -> None:
        self._vectors = vectors
        self._seed = seed
        self.available = len(vectors)

    def drawn(self, count: int, draw: int) -> Iterator[Faces]:
        """See `Distractors`.

        Raises:
            ValueError: there are not as many.
        """
        if count > self.available:
            raise ValueError(f"{count} distractors wanted of {self.available} pictures")
        chosen = np.random.default_rng([self._seed, draw]).permutation(self.available)[:count]
        for start in range(0, count, _CHUNK_ROWS):
            yield _nobodys(self._vectors[chosen[start : start + _CHUNK_ROWS]])


class NormalDistractors:
    """One face each of persons who do not exist, drawn from a normal density when asked for and never kept.

    Real people have lookalikes that such a density lacks; `SmoothedDistractors` have them.

    Args:
        model: fitted to embeddings of the network that is measured.
        most: how many may be asked for.
    """

    kind = "normal"

    def __init__(self, model: EmbeddingModel, most: int, seed: int = 0) -> None:
        self._sampler = Sampler(model)
        self._seed = seed
        self.available = most

    def drawn(self, count: int, draw: int) -> Iterator[Faces]:
        """See `Distractors`."""
        for rng, rows in _generators(self._seed, draw, count):
            yield _nobodys(self._sampler.strangers(rng, rows))


class SmoothedDistractors:
    """Faces near real ones, drawn when asked for and never kept.

    A face is a real one's embedding, moved towards the mean of all and away from it at random, so that mean and
    covariance stay those of the real ones: the smoothed bootstrap of Silverman and Young, "The bootstrap: to smooth or
    not to smooth?" (Biometrika 1987). What is drawn around a person's face is not among that person's distractors.

    Args:
        vectors: (n, d) real embeddings of the network that is measured, one of each person.
        like: (n,) label of each person who is looked for, `NOBODY` for others.
        most: how many may be asked for.
    """

    kind = "smoothed"

    def __init__(self, vectors: Vectors, like: Labels, most: int, seed: int = 0) -> None:
        self._mean = vectors.mean(axis=0)
        self._kept = np.float32(np.sqrt(1 - _DRAWN_SHARE)) * (vectors - self._mean)
        self._spread = root(_DRAWN_SHARE * np.cov(vectors.astype(np.float64), rowvar=False))
        self._like = like
        self._seed = seed
        self.available = most

    def drawn(self, count: int, draw: int) -> Iterator[Faces]:
        """See `Distractors`."""
        for rng, rows in _generators(self._seed, draw, count):
            chosen = rng.integers(len(self._kept), size=rows)
            moved = rng.standard_normal((rows, len(self._mean)), dtype=np.float32) @ self._spread
            yield Faces(unit(self._mean + self._kept[chosen] + moved), self._like[chosen])


def around(found: Embedded, others: Vectors, most: int, seed: int = 0) -> SmoothedDistractors:
    """Distractors around one picture of each person who is looked for, and around others."""
    order = np.random.default_rng(seed).permutation(len(found.labels))
    labels, first = np.unique(found.labels[order], return_index=True)
    vectors = np.concatenate([found.vectors[order[first]], others.reshape(-1, found.vectors.shape[1])])
    return SmoothedDistractors(vectors, np.concatenate([labels, np.full(len(others), NOBODY)]), most, seed)


def _nobodys(vectors: Vectors) -> Faces:
    return Faces(vectors, np.full(len(vectors), NOBODY))


def _generators(seed: int, draw: int, count: int) -> Iterator[tuple[np.random.Generator, int]]:
    for start in range(0, count, _CHUNK_ROWS):
        yield np.random.default_rng([seed, draw, start]), min(_CHUNK_ROWS, count - start)
