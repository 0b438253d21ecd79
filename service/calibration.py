"""From a target false-positive rate and a gallery size to a threshold, and from a score back to a rate."""

from __future__ import annotations

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
        return 1.0 - NormalDist(self.mean, self.std).cdf(similarity)

    def fpir(self, similarity: float, gallery_size: int) -> float:
        """Chance that a stranger's best match among `gallery_size` faces reaches `similarity`.

        The comparisons are taken as independent: `1 - (1 - FMR)^N` (ISO/IEC 19795-1, section on identification).
        """
        return float(1.0 - (1.0 - self.false_match_rate(similarity)) ** gallery_size)

    def threshold(self, fpir: float, gallery_size: int) -> float:
        """Least similarity whose FPIR is at most `fpir` in a gallery of `gallery_size` faces.

        Raises:
            ValueError: the rate is not within (0, 1).
        """
        if not 0.0 < fpir < 1.0:
            raise ValueError(f"an FPIR lies between 0 and 1, not {fpir}")
        rate = 1.0 - (1.0 - fpir) ** (1.0 / max(1, gallery_size))
        # inv_cdf of the lower tail: 1 - rate would round to 1 for galleries of a million.
        return min(_MAX_THRESHOLD, self.mean - self.std * NormalDist().inv_cdf(rate))
