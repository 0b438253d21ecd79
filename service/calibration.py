"""From a target false-positive rate and a gallery size to a threshold, and from a score back to a rate."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Self

from service.contract import ImpostorScores, ImpostorTail

# A threshold beyond this says "nobody": no cosine of two pictures can be held against a rarer event with confidence.
_MAX_THRESHOLD = 0.99
# A shape nearer to 0 than this is an exponential tail.
_EXPONENTIAL = 1e-9


@dataclass(frozen=True, slots=True)
class ImpostorCurve:
    """How often the cosine of two pictures of different people reaches a value, as measured at export.

    Three parts: up to the last point of `body`, deviates of a normal distribution interpolated between points; beyond,
    a generalised Pareto tail, which extreme values follow whatever the distribution they come from (Pickands 1975); and
    without points, a normal distribution.

    Attributes:
        mean, std: of the cosines.
        body: cosines and the share of comparisons that reach them, ascending; empty without a tail.
        tail: from where the body ends.
    """

    mean: float
    std: float
    body: tuple[tuple[float, float], ...] = ()
    tail: ImpostorTail | None = None

    @classmethod
    def of(cls, scores: ImpostorScores) -> Self:
        """What a model's manifest states."""
        return cls(scores.mean, scores.std, scores.body, scores.tail)

    def false_match_rate(self, similarity: float) -> float:
        """Chance that one comparison of two different people reaches `similarity`."""
        tail = self.tail
        if tail is not None and similarity >= tail.start:
            return tail.rate * _pareto_survival(similarity - tail.start, tail.shape, tail.scale)
        knots = self._knots()
        if not knots:
            return _normal_survival((similarity - self.mean) / self.std)
        (low, low_deviate), (high, high_deviate) = _around(knots, similarity, 0)
        if similarity < low:
            return _normal_survival(low_deviate + (similarity - low) / self.std)
        return _normal_survival(low_deviate + (high_deviate - low_deviate) * (similarity - low) / (high - low))

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
        return min(_MAX_THRESHOLD, self._similarity(rate))

    def _similarity(self, rate: float) -> float:
        """The inverse of `false_match_rate`."""
        tail = self.tail
        if tail is not None and rate <= tail.rate:
            return tail.start + _pareto_excess(rate / tail.rate, tail.shape, tail.scale)
        # inv_cdf of the lower tail: 1 - rate would round to 1 for galleries of a million.
        deviate = -NormalDist().inv_cdf(rate)
        knots = self._knots()
        if not knots:
            return self.mean + self.std * deviate
        (low, low_deviate), (high, high_deviate) = _around(knots, deviate, 1)
        if deviate < low_deviate:
            return low + (deviate - low_deviate) * self.std
        return low + (high - low) * (deviate - low_deviate) / (high_deviate - low_deviate)

    def _knots(self) -> list[tuple[float, float]]:
        """Cosines and the normal deviates of their rates: what is interpolated, since it is nearly a line."""
        if self.tail is None:
            return []
        points = (*self.body, (self.tail.start, self.tail.rate))
        return [(similarity, -NormalDist().inv_cdf(rate)) for similarity, rate in points]


def _around(
    knots: Sequence[tuple[float, float]], value: float, axis: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The two knots next to a value on either axis; the outermost two beyond the ends."""
    pairs = list(pairwise(knots))
    return next((pair for pair in pairs if value < pair[1][axis]), pairs[-1])


def _normal_survival(deviate: float) -> float:
    return 0.5 * math.erfc(deviate / math.sqrt(2.0))


def _pareto_survival(excess: float, shape: float, scale: float) -> float:
    if abs(shape) < _EXPONENTIAL:
        return math.exp(-excess / scale)
    base = 1.0 + shape * excess / scale
    return base ** (-1.0 / shape) if base > 0.0 else 0.0


def _pareto_excess(survival: float, shape: float, scale: float) -> float:
    if abs(shape) < _EXPONENTIAL:
        return -scale * math.log(survival)
    return scale * math.expm1(-shape * math.log(survival)) / shape
