"""Benchmark protocols over an `embed` callable. Nothing here chooses a checkpoint or a setting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.bootstrap import DRAWS, Interval, people_drawn, percentiles
from model_training.protocols.embedding import Embed, Progress
from model_training.protocols.metrics import FoldAccuracy, fold_accuracy, supports, tar_at_far
from model_training.protocols.pairs import PairList


@dataclass(frozen=True)
class VerificationResult:
    """Outcome of a verification protocol.

    Attributes:
        accuracy: over the folds.
        accuracy_interval: 95 % of its mean, of drawing people again; pairs, where nobody says who the people are.
        tar: true accept rate by false accept rate, for the rates that the impostor count supports.
        missed: pictures in which no face was found; their pairs score -1 and count.
        pictures: distinct pictures in the pairs.
    """

    accuracy: FoldAccuracy
    accuracy_interval: Interval
    tar: dict[float, float]
    missed: tuple[str, ...]
    pictures: int
    scores: NDArray[np.float64]
    same: NDArray[np.bool_]


def verification(
    listed: PairList,
    embed: Embed,
    *,
    fars: tuple[float, ...] = (1e-2, 1e-3),
    progress: Progress = iter,
) -> VerificationResult:
    """Cross-validated accuracy and TAR at fixed FARs.

    Args:
        embed: called once for each distinct picture.
        fars: rates to report; one that the impostor count cannot support is left out.
        progress: wraps the pictures, for a progress bar.
    """
    embeddings = {picture: embed(picture) for picture in progress(listed.pictures)}
    scores = np.array([_score(embeddings[pair.first], embeddings[pair.second]) for pair in listed.pairs])
    same = np.array([pair.same for pair in listed.pairs])
    impostors = int(np.count_nonzero(~same))
    tar = {far: tar_at_far(scores, same, far)[0] for far in fars if supports(impostors, far)}
    accuracy = fold_accuracy(scores, same, listed.folds)
    right = (scores >= np.repeat(accuracy.thresholds, len(scores) // listed.folds)) == same
    return VerificationResult(
        accuracy=accuracy,
        accuracy_interval=_interval(right, listed),
        tar=tar,
        missed=tuple(picture.name for picture, vector in embeddings.items() if vector is None),
        pictures=len(embeddings),
        scores=scores,
        same=same,
    )


def _interval(right: NDArray[np.bool_], listed: PairList, seed: int = 0) -> Interval:
    """Of the share of pairs judged rightly, at the thresholds that they were judged at."""
    rng = np.random.default_rng(seed)
    if listed.person is None:
        return percentiles(rng.binomial(len(right), right.mean(), size=DRAWS) / len(right))
    names = [listed.person(picture) for pair in listed.pairs for picture in (pair.first, pair.second)]
    people, person = np.unique(names, return_inverse=True)
    first, second = person[::2], person[1::2]
    found = []
    for times in people_drawn(len(people), DRAWS, rng):
        # A pair of two people is there as often as both are; a pair of one person as often as they are.
        weights = times[:, first] * np.where(first == second, 1, times[:, second])
        found.append(weights @ right / np.maximum(weights.sum(axis=1), 1))
    return percentiles(np.concatenate(found))


def _score(first: NDArray[np.float32] | None, second: NDArray[np.float32] | None) -> float:
    if first is None or second is None:
        return -1.0
    return float(np.clip(np.dot(first, second), -1.0, 1.0))
