"""Open-set identification: how often strangers are taken for somebody, and enrolled people for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.bootstrap import DRAWS, Interval, people_drawn, percentiles, ratio_interval
from model_training.protocols.metrics import require_support

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
        interval: 95 % of it, of drawing strangers and people in the gallery again.
        missed: FNIR, share of probes of enrolled people whose own person was not the best match or did not reach it.
        missed_interval: 95 % of it, of drawing the enrolled people again.
        threshold: cosine.
        strangers: probes of people who are not enrolled, one a person, in each trial.
        different_strangers: people who were strangers in some trial.
        lookalikes: pairs of a stranger and somebody who may be in the gallery, over all people at hand, of whom the
            rate asked lets through as many. Trials draw from these again and again: few of them say little, however
            many trials there are.
        mates: probes of people who are enrolled, over all trials.
    """

    size: int
    asked: float
    observed: float
    interval: Interval
    missed: float
    missed_interval: Interval
    threshold: float
    strangers: int
    different_strangers: int
    lookalikes: float
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
        TooFewImpostors: less than ten of the strangers' probes of all trials are expected to be false positives.
        ValueError: there are not enough people or distractors.
    """
    people = np.unique(names, return_inverse=True)[1]
    enrolled = size if enrolled is None else enrolled
    others = np.empty((0, embeddings.shape[1]), dtype=np.float32) if distractors is None else distractors
    strangers = int(people.max()) + 1 - enrolled
    if strangers < 1 or size - enrolled > len(others) or enrolled > size:
        raise ValueError(f"{people.max() + 1} people and {len(others)} distractors do not make a gallery of {size}")
    require_support(strangers * trials, min(rates), events="probes of strangers", rate_name="an FPIR")
    rng = np.random.default_rng(seed)
    drawn = [_trial(embeddings, people, others, enrolled, size, rng) for _ in range(trials)]
    persons = int(people.max()) + 1
    # Each pair of people is there once, whichever of the two is the stranger.
    pairs = persons * (persons - 1) / 2 * (enrolled > 0) + persons * len(others) * (size > enrolled)
    return list(_figures(drawn, threshold, size, rates, pairs))


@dataclass(frozen=True)
class _Trial:
    """Best scores of strangers and of mates' probes, whose each is, whom the strangers' best match was, and whether
    the mates' best was their own person.
    """

    strangers: Vectors
    stranger: NDArray[np.int64]
    resembles: NDArray[np.int64]
    mates: Vectors
    mate: NDArray[np.int64]
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
    filler = rng.permutation(len(others))[: size - enrolled]
    gallery = np.concatenate([embeddings[picture[inside]], others[filler]])
    owner = np.concatenate([inside, len(picture) + filler])
    enrolled_now = np.zeros(len(picture), dtype=bool)
    enrolled_now[inside] = True
    probes = np.setdiff1d(np.flatnonzero(enrolled_now[people]), picture)
    scores = embeddings[probes] @ gallery.T
    best = scores.argmax(axis=1) if len(probes) else np.empty(0, dtype=np.int64)
    of_strangers = embeddings[picture[outside]] @ gallery.T
    nearest = of_strangers.argmax(axis=1)
    return _Trial(
        strangers=of_strangers[np.arange(len(outside)), nearest],
        stranger=outside,
        resembles=owner[nearest],
        mates=scores[np.arange(len(probes)), best],
        mate=people[probes],
        right=owner[best] == people[probes],
    )


def _figures(
    drawn: Sequence[_Trial], threshold: Threshold, size: int, rates: Sequence[float], pairs: float
) -> Iterator[OpenSetFigure]:
    best, stranger, resembles, mates, mate, right = (
        np.concatenate([getattr(trial, part) for trial in drawn])
        for part in ("strangers", "stranger", "resembles", "mates", "mate", "right")
    )
    for rate in rates:
        least = threshold(rate, size)
        taken = best >= least
        missed, missed_interval = _by_person(~(right & (mates >= least)), mate)
        yield OpenSetFigure(
            size=size,
            asked=rate,
            observed=float(taken.mean()),
            interval=_by_pair(stranger, resembles, taken),
            missed=missed,
            missed_interval=missed_interval,
            threshold=least,
            strangers=len(drawn[0].strangers),
            different_strangers=len(np.unique(stranger)),
            # Of as many comparisons as there are faces in the gallery, one in 1 / rate reaches the threshold.
            lookalikes=pairs * rate / size,
            mates=len(mates),
        )


def _by_pair(stranger: NDArray[np.int64], resembles: NDArray[np.int64], taken: NDArray[np.bool_]) -> Interval:
    """Of the share taken for somebody: an event is there as often as the stranger and whom they resemble both are."""
    probes = np.bincount(stranger)
    people = max(len(probes), int(resembles.max()) + 1)
    found = []
    for times in people_drawn(people, DRAWS, np.random.default_rng(0)):
        events = (times[:, stranger[taken]] * times[:, resembles[taken]]).sum(axis=1)
        found.append(events / np.maximum(times[:, : len(probes)] @ probes, 1))
    return percentiles(np.concatenate(found))


def _by_person(events: NDArray[np.bool_], person: NDArray[np.int64]) -> tuple[float, Interval]:
    """Share of events, and its interval with people drawn again; not a number where there is none."""
    if not len(events):
        return float("nan"), Interval(float("nan"), float("nan"))
    counts = np.bincount(person)
    happened = np.bincount(person, weights=events)
    return float(events.mean()), ratio_interval(happened[counts > 0], counts[counts > 0].astype(np.float64))
