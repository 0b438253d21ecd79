"""Galleries and probes of any size, drawn in chunks: the same rows every time, and never all of them twice.

A chunk depends on the seed and its number alone, so any row can be drawn again without those before it. Whoever wants
the rows draws them once more instead of keeping a second copy beside the structure that is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.density import EmbeddingModel, Sampler, Vectors, unit

_VALUES_A_CHUNK = 2**22
_MODEL = Path(__file__).with_name("embedding_model.npz")
DATA = ("isotropic", "modelled")


class Source(Protocol):
    """Where faces come from."""

    described: str
    dimension: int

    def faces(self, seed: tuple[int, ...], count: int) -> Vectors:
        """(count, d) float32, unit length: the faces of one chunk."""

    def probes(self, seed: tuple[int, ...], faces: Vectors, targets: NDArray[np.int64]) -> Vectors:
        """(m, d) float32, unit length: a probe for each of m targets, numbers of faces of this chunk."""


class Isotropic:
    """Every direction as likely, probes at a given cosine to a face: the hard case, since nobody is near anybody."""

    def __init__(self, dimension: int, cosine: float = 0.5) -> None:
        self.dimension = dimension
        self._cosine = cosine
        self.described = f"isotropic unit vectors, probes at cosine {cosine:g} to their mates"

    def faces(self, seed: tuple[int, ...], count: int) -> Vectors:
        """See `Source`."""
        drawn = np.random.default_rng([*seed, 0]).standard_normal((count, self.dimension), dtype=np.float32)
        return unit(drawn)

    def probes(self, seed: tuple[int, ...], faces: Vectors, targets: NDArray[np.int64]) -> Vectors:
        """See `Source`."""
        rng = np.random.default_rng([*seed, 1])
        away = unit(rng.standard_normal((len(targets), self.dimension), dtype=np.float32))
        mates = faces[targets]
        # What is left of a random direction at right angles to the mate, so that the cosine is met exactly.
        away = unit(away - (away * mates).sum(axis=1, keepdims=True) * mates)
        return unit(self._cosine * mates + (1 - self._cosine**2) ** 0.5 * away)


class Modelled:
    """Faces as the student network embeds them, several a person; a probe is another face of an enrolled person."""

    faces_a_person = 4

    def __init__(self, model: EmbeddingModel) -> None:
        self.dimension = model.dimension
        self._sampler = Sampler(model)
        self.described = (
            f"drawn from a model fitted to the student's embeddings of LFW, {self.faces_a_person} faces a person, "
            "probes are further faces of enrolled persons"
        )

    def faces(self, seed: tuple[int, ...], count: int) -> Vectors:
        """See `Source`."""
        persons = self._persons(seed, -(-count // self.faces_a_person))
        drawn = self._sampler.spread(np.random.default_rng([*seed, 1]), count)
        drawn += np.repeat(persons, self.faces_a_person, axis=0)[:count]
        return unit(drawn)

    def probes(self, seed: tuple[int, ...], faces: Vectors, targets: NDArray[np.int64]) -> Vectors:
        """See `Source`."""
        persons = self._persons(seed, -(-len(faces) // self.faces_a_person))
        drawn = self._sampler.spread(np.random.default_rng([*seed, 2]), len(targets))
        return unit(drawn + persons[targets // self.faces_a_person])

    def _persons(self, seed: tuple[int, ...], count: int) -> Vectors:
        return self._sampler.persons(np.random.default_rng([*seed, 0]), count)


def source(data: str, dimension: int) -> Source:
    """By its name, one of `DATA`.

    Raises:
        ValueError: no such data, or none of that dimension.
    """
    if data == "isotropic":
        return Isotropic(dimension)
    if data != "modelled":
        raise ValueError(f"no data named {data}")
    model = EmbeddingModel.load(_MODEL)
    drawn = Modelled(model.stretched(dimension))
    if dimension != model.dimension:
        parts = dimension // model.dimension
        drawn.described += f"; stretched: {parts} independent draws of {model.dimension} values end to end"
    return drawn


class Rows:
    """The `count` faces of a gallery, (count, d) float32 of unit length, drawn when asked for.

    Attributes:
        drawn_s: seconds spent on drawing so far, for a clock that is to leave them out.
    """

    def __init__(self, drawn_from: Source, count: int, seed: int = 0) -> None:
        self._source = drawn_from
        self._seed = seed
        self.count = count
        self.dimension = drawn_from.dimension
        self.drawn_s = 0.0
        # Whole persons, so that nobody's faces are in two chunks.
        self._at_once = max(1, _VALUES_A_CHUNK // self.dimension // Modelled.faces_a_person) * Modelled.faces_a_person

    def chunks(self) -> Iterator[tuple[int, Vectors]]:
        """Number of the first row, and rows, of one chunk after another."""
        for start in range(0, self.count, self._at_once):
            yield start, self._chunk(start)

    def sample(self, count: int) -> Vectors:
        """The first `count` rows, or all; rows come in no order, so these are as good as any."""
        sample = np.empty((min(count, self.count), self.dimension), dtype=np.float32)
        for start, rows in self.chunks():
            if start >= len(sample):
                break
            sample[start : start + len(rows)] = rows[: len(sample) - start]
        return sample

    def at(self, numbers: NDArray[np.int64]) -> Vectors:
        """(m, d) float32: the rows of these numbers, (m,) int64, in their order."""
        found = np.empty((len(numbers), self.dimension), dtype=np.float32)
        chunk_of = numbers // self._at_once
        for chunk in np.unique(chunk_of).tolist():
            wanted = np.flatnonzero(chunk_of == chunk)
            start = chunk * self._at_once
            found[wanted] = self._chunk(start)[numbers[wanted] - start]
        return found

    def probes(self, count: int) -> Vectors:
        """(count, d) float32: probes of faces drawn at random, none more likely than another."""
        targets = np.random.default_rng([self._seed, 1]).integers(0, self.count, count)
        probes = np.empty((count, self.dimension), dtype=np.float32)
        chunk_of = targets // self._at_once
        for chunk in np.unique(chunk_of).tolist():
            wanted = np.flatnonzero(chunk_of == chunk)
            start = chunk * self._at_once
            probes[wanted] = self._source.probes((self._seed, 0, chunk), self._chunk(start), targets[wanted] - start)
        return probes

    def _chunk(self, start: int) -> Vectors:
        started = time.perf_counter()
        rows = self._source.faces((self._seed, 0, start // self._at_once), min(self._at_once, self.count - start))
        self.drawn_s += time.perf_counter() - started
        return rows
