"""A coarse pass over compressed embeddings that finds the few worth scoring exactly.

Every two values of an embedding become one of sixteen codes, half a byte, and the products of a probe with all sixteen
are looked up in registers. A million embeddings of 128 values take 32 MB and about a millisecond of one core.

Source: Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with
product quantization fast scan" (VLDB 2015), as FAISS has it.
"""

from __future__ import annotations

from typing import Self, cast

import faiss
import numpy as np
from numpy.typing import NDArray

# Rows that the codes are fitted to: thousands for each of the sixteen.
TRAINING_ROWS = 65_536
# Sixteen codes cannot be fitted to fewer rows than FAISS wants for each.
FEWEST_ROWS = 640

_VALUES_PER_CODE = 2
_ENCODED_AT_ONCE = 65_536


class Sieve:
    """The compressed form of the first `rows` rows of a matrix. It never changes, so searches need no lock.

    Cost for n rows of d values: n d / 4 bytes; a pass over them for each probe; `extended` copies them.
    """

    def __init__(self, index: faiss.IndexPQFastScan, trained_on: int) -> None:
        self._index = index
        self.trained_on = trained_on

    @classmethod
    def fitted(cls, sample: NDArray[np.float32], *, gallery_rows: int) -> Self:
        """An empty sieve whose codes suit a sample.

        Args:
            sample: (n, d) float32, at least `FEWEST_ROWS` rows.
            gallery_rows: of the matrix that the sample was drawn from.
        """
        dimension = sample.shape[1]
        codes = -(-dimension // _VALUES_PER_CODE)
        index = faiss.IndexPQFastScan(codes * _VALUES_PER_CODE, codes, 4, faiss.METRIC_INNER_PRODUCT)
        # The default warns when there is less than this a code.
        index.pq.cp.min_points_per_centroid = 1
        index.train(_padded(sample))
        return cls(index, gallery_rows)

    @classmethod
    def of_codes(cls, codes: NDArray[np.float32], trained_on: int) -> Self:
        """An empty sieve of the `codes` of another one."""
        count, _, values = codes.shape
        index = faiss.IndexPQFastScan(count * values, count, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.ascontiguousarray(codes, dtype=np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        return cls(index, trained_on)

    @property
    def codes(self) -> NDArray[np.float32]:
        """What the codes stand for, (codes, 16, values) float32."""
        count, values = self._index.pq.M, self._index.pq.dsub
        return np.asarray(faiss.vector_to_array(self._index.pq.centroids).reshape(count, -1, values), dtype=np.float32)

    @property
    def rows(self) -> int:
        """Rows that `candidates` looks through: those from 0 to this."""
        return int(self._index.ntotal)

    def extended(self, vectors: NDArray[np.float32]) -> Sieve:
        """A sieve of these rows, (n, d) float32, behind the ones that are here; this one stays as it is."""
        index = self._copy()
        for start in range(0, len(vectors), _ENCODED_AT_ONCE):
            index.add(_padded(vectors[start : start + _ENCODED_AT_ONCE]))
        return Sieve(index, self.trained_on)

    def emptied(self) -> Sieve:
        """A sieve of the same codes without rows."""
        index = self._copy()
        index.reset()
        return Sieve(index, self.trained_on)

    def _copy(self) -> faiss.IndexPQFastScan:
        return cast(faiss.IndexPQFastScan, faiss.clone_index(self._index))

    def candidates(self, probes: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        """The rows most similar to each probe as far as the codes can tell.

        Args:
            probes: (n, d) float32.
            depth: at most `rows`.

        Returns:
            (n, depth) int64 rows, most similar first.
        """
        _, rows = self._index.search(_padded(probes), depth)
        return np.asarray(rows, dtype=np.int64)


def _padded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """With a zero behind each row of odd length, so that values pair up; products stay the same."""
    if vectors.shape[1] % _VALUES_PER_CODE == 0:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    return np.pad(vectors, ((0, 0), (0, 1)))
