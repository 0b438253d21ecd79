"""The whole ROC: every picture against every other, which supports false accept rates that lists of pairs cannot.

As in Liao et al., "A benchmark study of large-scale unconstrained face recognition" (IJCB 2014), without its splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.bootstrap import DRAWS, Interval, Numbers, people_drawn, percentiles
from model_training.protocols.embedding import Vectors
from model_training.protocols.metrics import require_support, supports

FARS = (1e-3, 1e-4, 1e-5, 1e-6)
_ROWS = 1_024
_BINS = 20_000
# Drawing people again moves the threshold; this many times the impostors it needs are kept for that.
_KEPT = 3

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class AcceptRate:
    """True accept rate at a false accept rate.

    Attributes:
        tar: share of all pairs of one person's pictures.
        by_person: the same with every person weighing alike, however many pictures there are of them.
        tar_interval, by_person_interval: 95 %, of drawing people again.
        threshold: least cosine that is accepted.
    """

    tar: float
    tar_interval: Interval
    by_person: float
    by_person_interval: Interval
    threshold: float


@dataclass(frozen=True)
class AllPairs:
    """Pairs of different people's pictures, of one person's, and the rates that their number supports."""

    impostors: int
    mates: int
    people: int
    rates: dict[float, AcceptRate]


class _Impostors(NamedTuple):
    """The highest scores, descending, the persons of each, and how many there are in all."""

    scores: Vectors
    first: Labels
    second: Labels
    total: int


class _Mates(NamedTuple):
    """All scores, ascending, and the person of each."""

    scores: Vectors
    person: Labels


def all_pairs(vectors: Vectors, labels: Labels, *, fars: Sequence[float] = FARS, seed: int = 0) -> AllPairs:
    """True accept rates over every pair of pictures.

    Args:
        vectors: (n, d) of unit length.
        labels: (n,) whose each is.
        fars: rates to report; one that the impostor count cannot support is left out.

    Raises:
        TooFewImpostors: none is supported.
        ValueError: nobody has two pictures.
    """
    people, person = np.unique(labels, return_inverse=True)
    counts = np.bincount(person)
    total = int((len(person) ** 2 - (counts**2).sum()) // 2)
    supported = [far for far in fars if supports(total, far)]
    if not supported:
        require_support(total, max(fars))
    mates = _mates(vectors, person)
    if not len(mates.scores):
        raise ValueError("nobody has two pictures")
    impostors = _impostors(vectors, person, total, max(supported))
    everybody = np.ones((1, len(people)))
    found = _rates(impostors, mates, counts, supported, everybody)
    drawn = [
        _rates(impostors, mates, counts, supported, times)
        for times in people_drawn(len(people), DRAWS, np.random.default_rng(seed))
    ]
    again = np.concatenate(drawn, axis=0)
    rates = {
        far: AcceptRate(
            tar=float(found[0, number, 0]),
            tar_interval=percentiles(again[:, number, 0]),
            by_person=float(found[0, number, 1]),
            by_person_interval=percentiles(again[:, number, 1]),
            threshold=float(found[0, number, 2]),
        )
        for number, far in enumerate(supported)
    }
    return AllPairs(total, len(mates.scores), len(people), rates)


def _mates(vectors: Vectors, person: Labels) -> _Mates:
    scores, owners = [], []
    for number, rows in enumerate(np.split(np.argsort(person, kind="stable"), np.cumsum(np.bincount(person))[:-1])):
        first, second = np.triu_indices(len(rows), k=1)
        scores.append((vectors[rows] @ vectors[rows].T)[first, second])
        owners.append(np.full(len(first), number))
    together, owner = np.concatenate(scores), np.concatenate(owners)
    order = np.argsort(together, kind="stable")
    return _Mates(together[order], owner[order])


def _blocks(vectors: Vectors, person: Labels) -> Iterator[tuple[Vectors, Labels, Labels]]:
    """Scores of impostor pairs, and the two persons of each: each pair once, a band of rows at a time."""
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        scores = vectors[rows] @ vectors[start:].T
        first, second = person[rows], person[start:]
        wanted = first[:, None] != second[None, :]
        wanted &= np.arange(len(first))[:, None] < np.arange(len(second))[None, :]
        yield np.where(wanted, scores, np.float32(-2)), first, second


def _impostors(vectors: Vectors, person: Labels, total: int, far: float) -> _Impostors:
    edges = np.linspace(-1, 1, _BINS + 1)
    counts = np.zeros(_BINS, dtype=np.int64)
    for scores, _, _ in _blocks(vectors, person):
        counts += np.histogram(np.clip(scores[scores > -2], -1, 1), bins=edges)[0]
    reached = np.cumsum(counts[::-1])
    bin_below = min(int(np.searchsorted(reached, min(total, np.ceil(total * far * _KEPT)))), _BINS - 1)
    floor = edges[_BINS - 1 - bin_below]
    kept: list[tuple[Vectors, Labels, Labels]] = []
    for scores, first, second in _blocks(vectors, person):
        row, column = np.nonzero(scores >= floor)
        kept.append((scores[row, column], first[row], second[column]))
    together, one, other = (np.concatenate(part) for part in zip(*kept, strict=True))
    order = np.argsort(-together, kind="stable")
    return _Impostors(together[order], one[order], other[order], total)


def _rates(
    impostors: _Impostors, mates: _Mates, counts: Labels, fars: Sequence[float], times: Numbers
) -> NDArray[np.float64]:
    """(draws, fars, 3): true accept rate, the same by person, and threshold, with each person there `times` times."""
    pairs = np.bincount(mates.person, minlength=len(counts))
    found = np.empty((len(times), len(fars), 3))
    for number, weights in enumerate(times):
        pictures = weights * counts
        # Copies of one person are no impostors of each other.
        total = (pictures.sum() ** 2 - (pictures**2).sum()) / 2
        accepted = np.cumsum(weights[impostors.first] * weights[impostors.second])
        of_pairs, of_people = weights[mates.person], weights[mates.person] / pairs[mates.person]
        below, below_by_person = np.cumsum(of_pairs), np.cumsum(of_people)
        for rank, far in enumerate(fars):
            refused = np.searchsorted(accepted, np.floor(round(total * far, 6)), side="right")
            threshold = impostors.scores[min(refused, len(impostors.scores) - 1)]
            start = np.searchsorted(mates.scores, threshold, side="right")
            missed, missed_by_person = (float(part[start - 1]) if start else 0.0 for part in (below, below_by_person))
            found[number, rank] = (
                1 - missed / below[-1],
                1 - missed_by_person / below_by_person[-1],
                np.nextafter(threshold, np.float32(np.inf)),
            )
    return found
