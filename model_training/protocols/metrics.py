"""Biometric error rates from scores. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# False accepts that a rate must be expected to show before it is reported.
FEWEST_FALSE_ACCEPTS = 10


class TooFewImpostors(ValueError):
    """The impostor comparisons cannot support the false accept rate asked for."""


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy over folds: mean and standard deviation, and the threshold each fold was judged at."""

    mean: float
    std: float
    thresholds: tuple[float, ...]


def best_threshold(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold that classifies most pairs rightly; among equals the middle of the widest gap.

    Args:
        scores: (n,) similarities.
        same: (n,) whether both sides are one person.
    """
    order = np.argsort(scores, kind="stable")
    ranked, labels = scores[order], same[order]
    # correct[i]: pairs judged rightly when exactly the i lowest scores are called different.
    different_below = np.concatenate([[0], np.cumsum(~labels)])
    same_above = labels.sum() - np.concatenate([[0], np.cumsum(labels)])
    correct = different_below + same_above
    edges = np.concatenate([[ranked[0] - 1e-6], (ranked[1:] + ranked[:-1]) / 2, [ranked[-1] + 1e-6]])
    gaps = np.concatenate([[0.0], np.diff(ranked), [0.0]])
    # No threshold parts equal scores.
    correct[1:-1][gaps[1:-1] == 0] = -1
    best = np.flatnonzero(correct == correct.max())
    return float(edges[best[np.argmax(gaps[best])]])


def fold_accuracy(scores: NDArray[np.float64], same: NDArray[np.bool_], folds: int) -> FoldAccuracy:
    """Cross-validated accuracy: each fold is judged at the threshold that is best on all the others.

    Args:
        scores: (n,) similarities, fold after fold in equal parts.
        same: (n,) whether both sides are one person.

    Raises:
        ValueError: the pairs do not divide into folds.

    Source: Huang et al., "Labeled Faces in the Wild" (2007), View 2.
    """
    if folds < 2 or len(scores) % folds or len(scores) != len(same):
        raise ValueError(f"{len(scores)} scores do not divide into {folds} folds")
    size = len(scores) // folds
    accuracies, thresholds = [], []
    for fold in range(folds):
        test = np.zeros(len(scores), dtype=bool)
        test[fold * size : (fold + 1) * size] = True
        threshold = best_threshold(scores[~test], same[~test])
        accuracies.append(float(((scores[test] >= threshold) == same[test]).mean()))
        thresholds.append(threshold)
    return FoldAccuracy(float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)), tuple(thresholds))


def supports(count: int, rate: float) -> bool:
    """Whether ten false accepts are to be expected among `count` impostors at this rate."""
    # The rounding guards against 10_000 * 1e-3 coming out as 9.9999.
    return round(count * rate, 9) >= FEWEST_FALSE_ACCEPTS


def require_support(count: int, rate: float, *, events: str = "impostor comparisons", rate_name: str = "a FAR") -> None:
    """Refuse a false accept rate of which the impostors at hand would show fewer than ten.

    Ten expected events leave a rate known to about a third of itself (their Poisson deviation is 10 ** -0.5).

    Raises:
        TooFewImpostors: `count * rate` is less than ten.
    """
    if not supports(count, rate):
        needed = math.ceil(round(FEWEST_FALSE_ACCEPTS / rate, 6))
        raise TooFewImpostors(f"{count:,} {events} cannot support {rate_name} of {rate:g}: it needs {needed:,}")


def threshold_at(impostors: NDArray[np.floating], rate: float) -> float:
    """The least threshold that at most a share `rate` of the impostor scores, (n,), reach."""
    ordered = np.sort(impostors)[::-1]
    # The rounding guards against 3000 * 1e-3 coming out as 2.9999.
    allowed = int(np.floor(round(len(ordered) * rate, 9)))
    # Strictly above the first impostor that must be refused.
    return float(np.nextafter(ordered[allowed], ordered.dtype.type(np.inf))) if allowed < len(ordered) else -1.0


def tar_at_far(scores: NDArray[np.float64], same: NDArray[np.bool_], far: float) -> tuple[float, float]:
    """True accept rate at the least threshold whose false accept rate is at most `far`, and that threshold.

    Raises:
        TooFewImpostors: fewer than `10 / far` impostor comparisons.
    """
    impostors = scores[~same]
    require_support(len(impostors), far)
    threshold = threshold_at(impostors, far)
    return float((scores[same] >= threshold).mean()), threshold
