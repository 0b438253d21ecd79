"""From a cosine to what CompreFace calls similarity."""

from __future__ import annotations

import math

# Of the pairs that CompreFace's builds use, (1.18, 5.29) and (1.14, 5.80) for two of its FaceNets, a round second one.
_STEEPNESS = 6.0
# What two pictures of different people may be taken for one by, as in /v1/verify.
FALSE_MATCH_RATE = 1e-3


def similarity_of(cosine: float, threshold: float) -> float:
    """CompreFace's own curve over the distance of unit vectors, placed so that the threshold is at 0.5.

    `(tanh(6 (d_t - d)) + 1) / 2` with `d = sqrt(2 - 2 cosine)` and `d_t` likewise of the threshold. It grows with the
    cosine; five digits are kept, as CompreFace does.

    Args:
        threshold: cosine at which the service itself would decide.
    """
    return round((math.tanh(_STEEPNESS * (_distance(threshold) - _distance(cosine))) + 1.0) / 2.0, 5)


def _distance(cosine: float) -> float:
    return math.sqrt(max(0.0, 2.0 - 2.0 * cosine))
