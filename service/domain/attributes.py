"""What can be told of a face beyond who it is: age, gender, liveness, whether a mask is worn, or another word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Names of attributes are open: which there are follows from the networks that a service has.
ATTRIBUTE_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,31}$")

# A face wears a mask if the classifier takes that for at least as likely as not.
MASK_WORN_FROM = 0.5

_AGES = re.compile(r"^(\d{1,3})(?:-(\d{1,3})|(\+))?$")
_OLDEST = 100


@dataclass(frozen=True, slots=True)
class ClassReading:
    """One of several classes.

    Attributes:
        probabilities: in [0, 1] by label; their sum is 1.
    """

    probabilities: Mapping[str, float]

    @property
    def value(self) -> str:
        """The most probable label; of equal ones the first."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """Of that label."""
        return self.probabilities[self.value]


@dataclass(frozen=True, slots=True)
class ValueReading:
    """A number, such as an age.

    Attributes:
        unit: what it counts, None for a bare number.
    """

    value: float
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreReading:
    """Whether something is so, such as that a face is live.

    Attributes:
        probability: in [0, 1], that it is.
        threshold: from which probability on it is taken to be.
    """

    probability: float
    threshold: float

    @property
    def value(self) -> bool:
        """Whether it is taken to be so."""
        return self.probability >= self.threshold


AttributeReading = ClassReading | ValueReading | ScoreReading


def mean_reading(readings: Sequence[AttributeReading]) -> AttributeReading:
    """What several networks say of one attribute of one face together: the mean of their probabilities, or values.

    Args:
        readings: at least one, all of one kind, with the same labels, unit or threshold.
    """
    first = readings[0]
    if isinstance(first, ClassReading):
        classes = [each for each in readings if isinstance(each, ClassReading)]
        return ClassReading(
            {label: _mean([each.probabilities[label] for each in classes]) for label in first.probabilities}
        )
    if isinstance(first, ScoreReading):
        scores = [each.probability for each in readings if isinstance(each, ScoreReading)]
        return ScoreReading(_mean(scores), first.threshold)
    return ValueReading(_mean([each.value for each in readings if isinstance(each, ValueReading)]), first.unit)


def age_range(label: str) -> tuple[int, int] | None:
    """The youngest and the oldest that a class of ages has, from `25-32`, `31` or `60+`; None for any other label."""
    ages = _AGES.fullmatch(label)
    if ages is None:
        return None
    youngest = int(ages[1])
    oldest = max(youngest, _OLDEST) if ages[3] else int(ages[2] or youngest)
    return (youngest, oldest) if youngest <= oldest else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
