"""Intervals of rates by drawing people again: comparisons of one person are no independent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 1_000
_LEVEL_PERCENT = (2.5, 97.5)
# Of one block of draws: 32 MiB of weights.
_WEIGHTS_AT_ONCE = 2**22

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """The middle 95 % of what other people of the same kind would have given."""

    low: float
    high: float


def ratio_interval(numerators: Numbers, denominators: Numbers, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Of `sum(numerators) / sum(denominators)`, over draws of people with replacement.

    Args:
        numerators, denominators: (p,) of each person, for instance their probes that were missed, and their probes.

    Raises:
        ValueError: there is nobody, or nothing to divide by.

    Source: Efron, "Bootstrap methods: another look at the jackknife" (1979); people as the unit as in Bolle et al.,
    "Error analysis of pattern recognition systems: the subsets bootstrap" (2004).
    """
    if not len(numerators) or len(numerators) != len(denominators) or not denominators.sum() > 0:
        raise ValueError("an interval needs people, and something to divide by")
    found = [
        weights @ numerators / np.maximum(weights @ denominators, 1e-12)
        for weights in people_drawn(len(numerators), draws, np.random.default_rng(seed))
    ]
    return percentiles(np.concatenate(found))


def people_drawn(people: int, draws: int, rng: np.random.Generator) -> Iterator[Numbers]:
    """Blocks of (k, people) float64: how often each person is in each of `draws` draws."""
    at_once = max(1, _WEIGHTS_AT_ONCE // people)
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        yield rng.multinomial(people, np.full(people, 1 / people), size=count).astype(np.float64)


def percentiles(found: Numbers) -> Interval:
    """The interval of (draws,) figures."""
    low, high = np.percentile(found, _LEVEL_PERCENT)
    return Interval(float(low), float(high))
