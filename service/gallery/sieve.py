"""A coarse pass over compressed embeddings that finds the few worth scoring exactly.

Every two values of an embedding become one of sixteen codes, half a byte, and the products of a probe with all sixteen
are looked up in registers. A million embeddings of 128 values take 32 MB and about a millisecond of one core.

Source: Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with
product quantization fast scan" (VLDB 2015), as FAISS has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.large_pages import ask_for_large_pages
from service.gallery.team import Team

# Rows that the codes are fitted to: thousands for each of the sixteen.
TRAINING_ROWS = 65_536
# Sixteen codes cannot be fitted to fewer rows than FAISS wants for each.
FEWEST_ROWS = 640

_VALUES_PER_CODE = 2
_BITS_PER_CODE = 4
# Rows whose codes lie together. For 32, FAISS has a kernel that takes several probes through them at once, which halves
# the cost of a probe under load, when the codes come from memory anew each time. Over 64 a lone probe may be a fifth
# faster, on some processors and with the codes in their caches (docs/benchmarks.md, the variants).
_BLOCK_ROWS = 32
_ENCODED_AT_ONCE = 65_536
# Two of them at a million faces: one for each of two cores, and half of the codes to copy when rows are taken in. Each
# costs a search some 0.08 ms besides its rows.
SHARD_ROWS = 524_288


class Sieve:
    """The compressed form of the first `rows` rows of a matrix. It never changes, so searches need no lock.

    It comes in shards, which several cores can look through at once, and of which `extended` copies only the last.
    Cost for n rows of d values: n d / 4 bytes, and a pass over them for each probe.
    """

    def __init__(
        self, shards: tuple[faiss.IndexPQFastScan, ...], empty: faiss.IndexPQFastScan, trained_on: int
    ) -> None:
        self._shards = shards
        self._empty = empty
        self.trained_on = trained_on
        self.rows = sum(int(shard.ntotal) for shard in shards)

    @classmethod
    def fitted(cls, sample: NDArray[np.float32], *, gallery_rows: int) -> Self:
        """An empty sieve whose codes suit a sample.

        Args:
            sample: (n, d) float32, at least `FEWEST_ROWS` rows.
            gallery_rows: of the matrix that the sample was drawn from.
        """
        codes = -(-sample.shape[1] // _VALUES_PER_CODE)
        empty = _new_index(codes, _VALUES_PER_CODE)
        # The default warns when there is less than this a code.
        empty.pq.cp.min_points_per_centroid = 1
        with _one_thread():
            empty.train(_padded(sample))
        return cls((), empty, gallery_rows)

    @classmethod
    def of_codes(cls, codes: NDArray[np.float32], trained_on: int) -> Self:
        """An empty sieve of the `codes` of another one."""
        count, _, values = codes.shape
        empty = _new_index(count, values)
        faiss.copy_array_to_vector(np.ascontiguousarray(codes, dtype=np.float32).ravel(), empty.pq.centroids)
        empty.is_trained = True
        return cls((), empty, trained_on)

    @property
    def codes(self) -> NDArray[np.float32]:
        """What the codes stand for, (codes, 16, values) float32."""
        count, values = self._empty.pq.M, self._empty.pq.dsub
        return np.asarray(faiss.vector_to_array(self._empty.pq.centroids).reshape(count, -1, values), dtype=np.float32)

    def extended(self, vectors: NDArray[np.floating]) -> Sieve:
        """A sieve of these rows, (n, d), behind the ones that are here; this one stays as it is."""
        shards = list(self._shards)
        if shards and shards[-1].ntotal < SHARD_ROWS:
            shards[-1] = _copy(shards[-1])
        start = 0
        while start < len(vectors):
            if not shards or shards[-1].ntotal >= SHARD_ROWS:
                shards.append(_copy(self._empty))
            end = min(start + _ENCODED_AT_ONCE, start + SHARD_ROWS - int(shards[-1].ntotal), len(vectors))
            shards[-1].add(_padded(vectors[start:end]))
            start = end
        for shard in shards[len(self._shards) - 1 if self._shards else 0 :]:
            ask_for_large_pages(int(shard.codes.get()), shard.codes.size())
        return Sieve(tuple(shards), self._empty, self.trained_on)

    def emptied(self) -> Sieve:
        """A sieve of the same codes without rows."""
        return Sieve((), self._empty, self.trained_on)

    def candidates(self, probes: NDArray[np.float32], depth: int, team: Team) -> NDArray[np.int64]:
        """The rows most similar to each probe as far as the codes can tell.

        Args:
            probes: (n, d) float32.
            depth: at most `rows`.
            team: helps to look through the shards.

        Returns:
            (n, depth) int64 rows, most similar first.
        """
        padded = _padded(probes)
        parts = team.run([partial(_search, shard, padded, depth) for shard in self._shards])
        if len(parts) == 1:
            return parts[0][1]
        scores = np.concatenate([scores for scores, _ in parts], axis=1)
        rows = np.concatenate([rows + number * SHARD_ROWS for number, (_, rows) in enumerate(parts)], axis=1)
        order = np.argsort(-scores, axis=1)[:, :depth]
        return np.asarray(np.take_along_axis(rows, order, axis=1))


def _new_index(codes: int, values: int) -> faiss.IndexPQFastScan:
    return faiss.IndexPQFastScan(codes * values, codes, _BITS_PER_CODE, faiss.METRIC_INNER_PRODUCT, _BLOCK_ROWS)


def _copy(index: faiss.IndexPQFastScan) -> faiss.IndexPQFastScan:
    return cast(faiss.IndexPQFastScan, faiss.clone_index(index))


def _search(
    shard: faiss.IndexPQFastScan, probes: NDArray[np.float32], depth: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores, rows = shard.search(probes, min(depth, int(shard.ntotal)))
    return scores, rows


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let faiss use one thread in here, of those that the calling thread may start.

    Fitting goes through thousands of steps, after each of which all threads wait for the slowest. It takes half a
    second of one core; on two that others use as well it was seen to take fifteen.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _padded(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """With a zero behind each row of odd length, so that values pair up; products stay the same."""
    if vectors.shape[1] % _VALUES_PER_CODE == 0:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    return np.pad(vectors, ((0, 0), (0, 1)))
