"""What a student's cosines are for different people and for one person: the ground of the service's thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.contract import ImpostorScores, ImpostorTail, MateScores

# Shares of impostor comparisons whose cosines are written down; beyond the last, one in a thousand, the tail is fitted.
BODY_RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
TAIL_RATE = 0.001
# Its shape is that of one in a hundred. Of 1.1 million comparisons the shape of one in a thousand is mostly chance:
# -0.016 for one student, -0.055 for another whose scores hardly differ; of one in a hundred -0.055 and -0.054.
SHAPE_RATE = 0.01
# With fewer comparisons beyond it a tail would be a guess, and the scores are taken as normally distributed.
FEWEST_EXCEEDANCES = 100
_DIGITS = 5


def measure_scores(
    embeddings: NDArray[np.float32], names: Sequence[str], source: str
) -> tuple[ImpostorScores, MateScores | None]:
    """Cosines between all pictures of different people, and between those of the same.

    Args:
        embeddings: (n, d) of unit length.
        names: who is in each picture.
        source: said in the manifest.

    Returns:
        The latter is None where nobody has two pictures.
    """
    people = np.unique(names, return_inverse=True)[1]
    rows, columns = np.triu_indices(len(embeddings), k=1)
    cosines = np.asarray((embeddings @ embeddings.T)[rows, columns], dtype=np.float64)
    same = people[rows] == people[columns]
    impostors, mates = cosines[~same], cosines[same]
    body, tail = _body_and_tail(impostors)
    scores = ImpostorScores(
        mean=_rounded(impostors.mean()),
        std=_rounded(impostors.std()),
        comparisons=len(impostors),
        source=source,
        body=body,
        tail=tail,
    )
    if not len(mates):
        return scores, None
    return scores, MateScores(mean=_rounded(mates.mean()), std=_rounded(mates.std()), comparisons=len(mates))


def _body_and_tail(impostors: NDArray[np.float64]) -> tuple[tuple[tuple[float, float], ...], ImpostorTail | None]:
    start = float(np.quantile(impostors, 1 - TAIL_RATE))
    excesses = impostors[impostors > start] - start
    if len(excesses) < FEWEST_EXCEEDANCES:
        return (), None
    shape_start = float(np.quantile(impostors, 1 - SHAPE_RATE))
    shape, _ = fit_pareto(impostors[impostors > shape_start] - shape_start, bound=1 - shape_start)
    mean = float(excesses.mean())
    shape = _ending_no_sooner(shape, mean, 1 - start)
    scale = mean * (1 - shape)
    tail = ImpostorTail(
        start=_rounded(start),
        rate=TAIL_RATE,
        shape=_rounded(shape),
        scale=_rounded(scale),
        exceedances=len(excesses),
        deviation=_rounded(_deviation(excesses, shape, scale)),
    )
    quantiles = np.quantile(impostors, 1 - np.array(BODY_RATES))
    return tuple((_rounded(cosine), rate) for cosine, rate in zip(quantiles, BODY_RATES, strict=True)), tail


def fit_pareto(excesses: NDArray[np.float64], *, bound: float) -> tuple[float, float]:
    """Shape and scale of the generalised Pareto distribution of (n,) positive excesses.

    By probability-weighted moments, which stay near where maximum likelihood strays for some hundred values. A negative
    shape ends the distribution at `-scale / shape`; where that would be before `bound`, the largest excess that can be,
    the distribution is made to end there: what has not been seen yet is not therefore impossible. A positive shape is a
    tail without an end and heavier than exponential, which cosines, none above 1, cannot have: it comes of few values
    or of people under two names, and is taken as 0.

    Source: Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto distribution" (1987).
    """
    ordered = np.sort(excesses)
    places = (np.arange(1, len(ordered) + 1) - 0.35) / len(ordered)
    mean, weighted = float(ordered.mean()), float((ordered * (1 - places)).mean())
    shape = 2 - mean / (mean - 2 * weighted)
    shape = min(_ending_no_sooner(shape, mean, bound), 0.0)
    return shape, mean * (1 - shape)


def _ending_no_sooner(shape: float, mean: float, bound: float) -> float:
    """The shape, or the one whose distribution of this mean, scale / (1 - shape), ends at the bound."""
    return max(shape, -mean / (bound - mean))


def _deviation(excesses: NDArray[np.float64], shape: float, scale: float) -> float:
    ordered = np.sort(excesses)
    base = np.maximum(1 + shape * ordered / scale, 0)
    expected = 1 - (base ** (-1 / shape) if shape else np.exp(-ordered / scale))
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max()))


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
