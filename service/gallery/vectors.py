"""What an embedding must be like before it is stored or compared, and the one way in which two are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import InvalidEmbedding

UNIT_TOLERANCE = 1e-3
# On disk embeddings are little-endian whatever the machine, so that a folder can be carried to another one.
STORED_DTYPE = np.dtype("<f4")


def not_unit(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices of the rows of (n, d) `vectors` that are not finite or whose length is off 1 by over `UNIT_TOLERANCE`."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        # Written so that NaN, which is neither within nor beyond anything, counts as wrong.
        return np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))


def checked_unit_rows(vectors: NDArray[Any], dimension: int) -> NDArray[np.float32]:
    """`vectors` as contiguous (n, dimension) float32 of unit length.

    They are refused rather than renormalised: a vector of another length comes from a caller who skipped a step, and
    scaling it would hide that.

    Raises:
        InvalidEmbedding: wrong shape or type, a value that is not finite, or a row that is not of unit length.
    """
    try:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidEmbedding("an embedding is an array of numbers") from error
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise InvalidEmbedding(
            f"an embedding has {dimension} values here, not an array of shape {rows.shape[1:]}", dimension=dimension
        )
    wrong = not_unit(rows)
    if len(wrong):
        what = "of unit length" if np.isfinite(rows[wrong[0]]).all() else "finite"
        raise InvalidEmbedding(f"embedding {int(wrong[0])} is not {what}", position=int(wrong[0]))
    return rows


def cosines(rows: NDArray[np.float32], probe: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each of (m, d) unit rows to a unit probe (d,): (m,) float32 in [-1, 1].

    Summed in float64 and rounded once, so that equal embeddings get equal scores wherever in a matrix they stand.
    A float32 matrix product promises no such thing: its kernels differ between the middle and the edge of a block.
    """
    sums = (rows.astype(np.float64) * probe.astype(np.float64)).sum(axis=1)
    return np.asarray(np.clip(sums, -1, 1), dtype=np.float32)
