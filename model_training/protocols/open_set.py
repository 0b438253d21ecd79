"""Open-set identification: how often strangers are taken for somebody, and enrolled people for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.metrics import TooFewImpostors

Vectors = NDArray[np.float32]
# Target FPIR and number of gallery faces to a threshold.
Threshold = Callable[[float, int], float]


@dataclass(frozen=True)
class OpenSetFigure:
    """One gallery size at one target rate.

    Attributes:
        size: faces in the gallery, distractors included, one a person.
        asked: the target FPIR.
        observed: share of strangers whose best match reached the threshold, over all trials.
        interval: 2.5 and 97.5 percentiles over trials.
        missed: FNIR, share of probes of enrolled people whose own person was not the best match or did not reach it.
        threshold: cosine.
        strangers: probes of people who are not enrolled, in each trial.
        mates: probes of people who are, over all trials.
    """

    size: int
    asked: float
    observed: float
    interval: tuple[float, float]
    missed: float
    threshold: float
    strangers: int
    mates: int


def open_set(
    embeddings: Vectors,
    names: Sequence[str],
    threshold: Threshold,
    *,
    size: int,
    rates: Sequence[float],
    distractors: Vectors | None = None,
    enrolled: int | None = None,
    trials: int = 30,
    seed: int = 0,
) -> list[OpenSetFigure]:
    """Enrol some people, probe with strangers and with other pictures of the enrolled, and count.

    Args:
        embeddings: (n, d) unit vectors of people who took no part in training.
        names: who is in each.
        threshold: what the service would use.
        size: gallery faces.
        rates: target FPIRs.
        distractors: (m, d) unit vectors of others, which fill the gallery beyond the people enrolled.
        enrolled: people enrolled of `names`; by default `size`.
        trials: with other people enrolled each time.
        seed: of the draws.

    Raises:
        TooFewImpostors: a rate would rest on less than one stranger in a trial.
        ValueError: there are not enough people or distractors.
    """
    people = np.unique(names, return_inverse=True)[1]
    enrolled = size if enrolled is None else enrolled
    others = np.empty((0, embeddings.shape[1]), dtype=np.float32) if distractors is None else distractors
    strangers = int(people.max()) + 1 - enrolled
    if strangers < 1 or size - enrolled > len(others) or enrolled > size:
        raise ValueError(f"{people.max() + 1} people and {len(others)} distractors do not make a gallery of {size}")
    unsupported = [rate for rate in rates if strangers * rate < 1]
    if unsupported:
        raise TooFewImpostors(f"{strangers} strangers cannot support an FPIR of {min(unsupported):g}")
    rng = np.random.default_rng(seed)
    drawn = [_trial(embeddings, people, others, enrolled, size, rng) for _ in range(trials)]
    return list(_figures(drawn, threshold, size, rates))


@dataclass(frozen=True)
class _Trial:
    """Best scores of strangers; best scores of mates' probes, and whether the best was their own person."""

    strangers: NDArray[np.float32]
    mates: NDArray[np.float32]
    right: NDArray[np.bool_]


def _trial(
    embeddings: Vectors,
    people: NDArray[np.int64],
    others: Vectors,
    enrolled: int,
    size: int,
    rng: np.random.Generator,
) -> _Trial:
    order = rng.permutation(len(people))
    # A random picture of each person, by the first place in a random order.
    _, first = np.unique(people[order], return_index=True)
    picture = order[first]
    chosen = rng.permutation(len(picture))
    inside, outside = chosen[:enrolled], chosen[enrolled:]
    filler = others[rng.permutation(len(others))[: size - enrolled]]
    gallery = np.concatenate([embeddings[picture[inside]], filler])
    owner = np.concatenate([inside, np.full(len(filler), -1)])
    enrolled_now = np.zeros(len(picture), dtype=bool)
    enrolled_now[inside] = True
    probes = np.setdiff1d(np.flatnonzero(enrolled_now[people]), picture)
    scores = embeddings[probes] @ gallery.T
    best = scores.argmax(axis=1) if len(probes) else np.empty(0, dtype=np.int64)
    return _Trial(
        strangers=(embeddings[picture[outside]] @ gallery.T).max(axis=1),
        mates=scores[np.arange(len(probes)), best],
        right=owner[best] == people[probes],
    )


def _figures(
    drawn: Sequence[_Trial], threshold: Threshold, size: int, rates: Sequence[float]
) -> Iterator[OpenSetFigure]:
    mates = np.concatenate([trial.mates for trial in drawn])
    right = np.concatenate([trial.right for trial in drawn])
    for rate in rates:
        least = threshold(rate, size)
        shares = [float((trial.strangers >= least).mean()) for trial in drawn]
        low, high = np.percentile(shares, [2.5, 97.5])
        yield OpenSetFigure(
            size=size,
            asked=rate,
            observed=float(np.mean(shares)),
            interval=(float(low), float(high)),
            missed=float(1 - (right & (mates >= least)).mean()) if len(mates) else float("nan"),
            threshold=least,
            strangers=len(drawn[0].strangers),
            mates=len(mates),
        )
