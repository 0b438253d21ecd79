"""From a target false-positive rate and a gallery size to a threshold, and from a score back to a rate."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from statistics import NormalDist

# A threshold beyond this says "nobody": no cosine of two pictures can be held against a rarer event with confidence.
_MAX_THRESHOLD = 0.99


@dataclass(frozen=True, slots=True)
class ImpostorCurve:
    """Cosines between pictures of different people, as a normal distribution measured at export.

    Attributes:
        mean: of the cosines.
        std: of the cosines.
    """

    mean: float
    std: float

    def false_match_rate(self, similarity: float) -> float:
        """Chance that one comparison of two different people reaches `similarity`."""
        return 0.5 * math.erfc((similarity - self.mean) / (self.std * math.sqrt(2.0)))

    def fpir(self, similarity: float, gallery_size: int) -> float:
        """Chance that a stranger's best match among `gallery_size` faces reaches `similarity`.

        The comparisons are taken as independent: `1 - (1 - FMR)^N` (ISO/IEC 19795-1, section on identification).
        """
        rate = self.false_match_rate(similarity)
        # Not 1 - (1 - rate)^N as written: below 1e-16 the difference would vanish.
        return -math.expm1(gallery_size * math.log1p(-rate)) if rate < 1.0 else float(gallery_size > 0)

    def threshold(self, fpir: float, gallery_size: int) -> float:
        """Least similarity whose FPIR is at most `fpir` in a gallery of `gallery_size` faces.

        Raises:
            ValueError: the rate is not within (0, 1).
        """
        if not 0.0 < fpir < 1.0:
            raise ValueError(f"an FPIR lies between 0 and 1, not {fpir}")
        rate = max(-math.expm1(math.log1p(-fpir) / max(1, gallery_size)), sys.float_info.min)
        # inv_cdf of the lower tail: 1 - rate would round to 1 for galleries of a million.
        return min(_MAX_THRESHOLD, self.mean - self.std * NormalDist().inv_cdf(rate))
