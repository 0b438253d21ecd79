"""A density fitted to a network's embeddings: how persons differ from each other, and the faces of one person.

A face is drawn as mean + person + face, normalised, with person ~ N(0, B) and face ~ s N(0, W): probabilistic linear
discriminant analysis as in Ioffe, "Probabilistic Linear Discriminant Analysis" (ECCV 2006). Some pictures are worse
than others, which the scale s says, log-normal with a mean square of 1. Only moments are kept, so no stored number
belongs to one picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_FACES_OF_A_CENTRE = 5


class EmbeddingModel(NamedTuple):
    """Moments of unit-length embeddings of d values.

    Attributes:
        mean: (d,) float32.
        between: (d, d) float32, covariance of persons, positive semidefinite.
        within: (d, d) float32, covariance of one person's faces, pooled over persons, positive semidefinite.
        unevenness: () float32, standard deviation of the logarithm of a face's squared scale.
    """

    mean: Vectors
    between: Vectors
    within: Vectors
    unevenness: NDArray[np.float32]

    @property
    def dimension(self) -> int:
        """Values of an embedding."""
        return len(self.mean)

    @classmethod
    def load(cls, path: Path) -> EmbeddingModel:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(*(stored[name].astype(np.float32) for name in cls._fields))

    def save(self, path: Path) -> None:
        """Write an .npz of float32 arrays; covariances of 128 values take 131 KB."""
        np.savez(path, **{name: array.astype(np.float32) for name, array in self._asdict().items()})

    def stretched(self, dimension: int) -> EmbeddingModel:
        """The model of a network that is wider by a whole factor.

        An embedding of the wider network is `factor` independent draws of this one end to end, each at 1 / sqrt(factor)
        of its length. Both spectra then keep their shape and their sums, every eigenvalue `factor` times as often and
        as much smaller, and neighbouring values stay related as they are in the network.

        Raises:
            ValueError: the dimension is no multiple of the model's.
        """
        factor, rest = divmod(dimension, self.dimension)
        if rest or not factor:
            raise ValueError(f"a model of {self.dimension} values gives multiples of them, not {dimension}")
        blocks = np.eye(factor, dtype=np.float32) / factor
        mean = np.tile(self.mean, factor) / np.sqrt(np.float32(factor))
        return EmbeddingModel(mean, np.kron(blocks, self.between), np.kron(blocks, self.within), self.unevenness)


def fitted(embeddings: Vectors, labels: NDArray[np.int64]) -> EmbeddingModel:
    """The moments of real embeddings, by the estimators of one-way analysis of variance.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) int64, whose face each is; two persons and one person with two faces at least.

    Raises:
        ValueError: too few persons, or nobody with two faces.
    """
    _, person_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    persons, faces = len(counts), len(labels)
    if persons < 2 or faces <= persons:
        raise ValueError("covariances need two persons, and a person with two faces")
    rows = embeddings.astype(np.float64)
    mean = rows.mean(axis=0)
    centres = np.zeros((persons, rows.shape[1]))
    np.add.at(centres, person_of, rows)
    centres /= counts[:, None]
    spread = rows - centres[person_of]
    within = spread.T @ spread / (faces - persons)
    off = (centres - mean) * np.sqrt(counts)[:, None]
    # Centres of few faces are spread by the faces as well: that share is taken off again (Searle, Variance Components).
    usual_count = (faces - (counts**2).sum() / faces) / (persons - 1)
    between = (off.T @ off / (persons - 1) - within) / usual_count
    return EmbeddingModel(
        mean.astype(np.float32),
        _semidefinite(between),
        _semidefinite(within),
        np.float32(_unevenness(spread, within, counts[person_of])),
    )


class Sampler:
    """Draws from a density; what it draws is not of unit length yet, so that parts can be added."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.dimension = model.dimension
        self._mean = model.mean
        self._between, self._within = root(model.between), root(model.within)
        self._unevenness = float(model.unevenness)

    def persons(self, rng: np.random.Generator, count: int) -> Vectors:
        """(count, d) float32: where the faces of as many persons lie."""
        drawn = rng.standard_normal((count, self.dimension), dtype=np.float32)
        return np.asarray(drawn @ self._between + self._mean, dtype=np.float32)

    def spread(self, rng: np.random.Generator, count: int) -> Vectors:
        """(count, d) float32: how far faces lie from their persons."""
        drawn = rng.standard_normal((count, self.dimension), dtype=np.float32) @ self._within
        log_squares = self._unevenness * rng.standard_normal((count, 1), dtype=np.float32) - self._unevenness**2 / 2
        return np.asarray(drawn * np.exp(log_squares / 2), dtype=np.float32)

    def strangers(self, rng: np.random.Generator, count: int) -> Vectors:
        """(count, d) float32 of unit length: one face each of as many persons."""
        return unit(self.persons(rng, count) + self.spread(rng, count))


def unit(rows: Vectors) -> Vectors:
    """Each row at length 1, in place."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def root(covariance: Vectors) -> Vectors:
    """(d, d) float32 R with R.T @ R the covariance, so that standard normal rows times R are distributed so."""
    values, axes = np.linalg.eigh(covariance.astype(np.float64))
    return np.asarray((axes * np.sqrt(np.clip(values, 0, None))).T, dtype=np.float32)


def _unevenness(spread: NDArray[np.float64], within: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """From how much more the squared distances to a person's centre vary than they would at the same scale."""
    # The centre of few faces lies in part where the face itself does.
    settled = counts >= _FACES_OF_A_CENTRE
    if settled.sum() < 2:
        return 0.0
    squares = (spread[settled] ** 2).sum(axis=1) * (counts[settled] / (counts[settled] - 1))
    varies = squares.var() / squares.mean() ** 2
    anyway = 2 * np.trace(within @ within) / np.trace(within) ** 2
    return float(np.sqrt(max(0.0, np.log((1 + varies) / (1 + anyway)))))


def _semidefinite(covariance: NDArray[np.float64]) -> Vectors:
    values, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray((axes * np.clip(values, 0, None)) @ axes.T, dtype=np.float32)
