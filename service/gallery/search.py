"""Searching one view of a gallery: exactly, by a scan of all rows, or sifted first, where it is large.

Cost, for n rows of d values: an exact search is one pass over the matrix, 4 n d bytes; a sifted one is a pass over the
sieve, a sixteenth of that, and exact work on a few hundred candidates.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.team import Team
from service.gallery.vectors import cosines
from service.gallery.view import View

# Past this many candidates a probe, one full pass is cheaper than a deeper heap.
DEEPEST_FETCH = 2_048
# Candidates a probe of the first pass through the sieve, at least so many a person wanted; the second goes deeper. Past
# so many rows they grow with them: of ten times as many rows ten times as many look nearer than the nearest by chance.
_SIFTED = 128
_SIFTED_FROM_ROWS = 1_000_000
_SIFTED_A_PERSON = 16
_DEEPER = 4
# The best face of a probe is beyond doubt when the sieve had it among the first quarter of its candidates.
_SAFE_SHARE = 4
# Rows of a float16 matrix that are widened at a time for a scan.
_WIDENED_AT_ONCE = 65_536


class Hit(NamedTuple):
    """A person found: the key and the id of their nearest face, and its cosine in [-1, 1]."""

    person: int
    face_id: str
    similarity: float


def _slack(view: View) -> np.float32:
    """Bound on what a float32 inner product of unit vectors and the rounding of the exact one can be apart.

    d units in the last place each way (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
    """
    return np.float32((view.vectors.shape[1] + 8) * 2.0**-23)


def _scan(
    view: View, probes: NDArray[np.float32], depth: int, start: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `depth` most similar rows from `start` on: scores (n, depth) float32 and rows (n, depth) int64."""
    vectors = view.vectors[start : view.rows]
    if vectors.dtype == np.float32:
        scores, rows = faiss.knn(probes, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows + start
    best = faiss.ResultHeap(len(probes), depth, keep_max=True)
    for first in range(0, len(vectors), _WIDENED_AT_ONCE):
        wide = vectors[first : first + _WIDENED_AT_ONCE].astype(np.float32)
        scores, rows = faiss.knn(probes, wide, min(depth, len(wide)), metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows + first + start)
    best.finalize()
    return best.D, best.I


def search_sifted(
    view: View, probes: NDArray[np.float32], top_k: int, team: Team, *, caution: float = 1.0
) -> list[list[Hit]]:
    """Candidates by the sieve and by a scan of the rows behind it, then exact scores.

    The sieve looks again, deeper, where it is in doubt about the first place. Where one or a few persons fill the
    candidates, so that others have no room, the search is exact. With `caution` it looks so many times deeper.
    """
    assert view.sieve is not None
    found: list[list[Hit]] = [[] for _ in range(len(probes))]
    if not view.live:
        return found
    unsettled = list(range(len(probes)))
    # Removed rows take up candidates until the upkeep has taken them out.
    crowd = min(view.rows / view.live, 4.0)
    least = min(_SIFTED * max(1.0, view.rows / _SIFTED_FROM_ROWS), DEEPEST_FETCH)
    first = int(caution * crowd * max(least, _SIFTED_A_PERSON * top_k))
    for wanted, last in ((first, False), (_DEEPER * first, True)):
        depth = min(wanted, view.sieve.rows)
        sifted = view.sieve.candidates(probes[unsettled], depth, team)
        behind = _behind_the_sieve(view, probes[unsettled], min(depth, _SIFTED))
        missing = []
        for position, probe in enumerate(unsettled):
            rows = np.concatenate([sifted[position], behind[position]])
            found[probe], best = _ranked_roughly(view, probes[probe], rows, top_k)
            enough = len(found[probe]) == top_k
            # A winner from behind the sieve was found exactly.
            sure = last or best >= depth or best * _SAFE_SHARE < depth
            if not (enough and sure) and depth < view.sieve.rows:
                missing.append(probe)
        unsettled = missing
        if not unsettled:
            return found
    exact = search_exactly(view, probes[unsettled], top_k)
    for probe, hits in zip(unsettled, exact, strict=True):
        found[probe] = hits
    return found


def _behind_the_sieve(view: View, probes: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
    start = view.sifted
    depth = min(depth, view.rows - start)
    if not depth:
        return np.empty((len(probes), 0), dtype=np.int64)
    return _scan(view, probes, depth, start)[1]


def _ranked_roughly(
    view: View, probe: NDArray[np.float32], rows: NDArray[np.int64], top_k: int
) -> tuple[list[Hit], int]:
    """Rank candidates of which few matter: float32 tells which those are.

    Returns:
        Hits, and the place among `rows` of the face that scores best.
    """
    places = np.flatnonzero(view.removed_at[rows] > view.version)
    if not len(places):
        return [], 0
    scores = view.vectors[rows[places]] @ probe
    few = 2 * top_k + 14
    if few < len(places):
        least = np.partition(scores, -few)[-few] - 2 * _slack(view)
        hits = _ranked(view, probe, rows[places[scores >= least]], top_k)
        if len(hits) == top_k:
            return hits, int(places[scores.argmax()])
    return _ranked(view, probe, rows[places], top_k), int(places[scores.argmax()])


def search_exactly(
    view: View, probes: NDArray[np.float32], top_k: int, *, deepest_fetch: int = DEEPEST_FETCH
) -> list[list[Hit]]:
    """By a scan of all rows.

    FAISS scans in float32 for more faces than wanted; those are scored again exactly. The answer stands once
    `top_k` persons are certain, that is once nobody outside the candidates could reach the last of them within
    the rounding of the scan. Until then the scan is repeated four times as deep.
    """
    found: list[list[Hit]] = [[] for _ in range(len(probes))]
    if not view.live:
        return found
    slack = _slack(view)
    unsettled = list(range(len(probes)))
    depth = max(4 * top_k, top_k + 28)
    while unsettled and (depth <= deepest_fetch or depth >= view.rows):
        depth = min(depth, view.rows)
        scores, rows = _scan(view, probes[unsettled], depth)
        missing = []
        for position, probe in enumerate(unsettled):
            hits = _ranked(view, probes[probe], rows[position], top_k)
            nobody_else = len(hits) == top_k and scores[position, -1] + slack < hits[-1].similarity
            if depth == view.rows or nobody_else:
                found[probe] = hits
            else:
                missing.append(probe)
        unsettled = missing
        depth *= 4
    for probe in unsettled:
        found[probe] = _search_everything(view, probes[probe], top_k)
    return found


def _search_everything(view: View, probe: NDArray[np.float32], top_k: int) -> list[Hit]:
    """For galleries where thousands of faces tie or belong to a few persons: O(n d + n log n)."""
    rows = view.visible(np.arange(view.rows))
    if not len(rows):
        return []
    scores = (view.vectors[: view.rows] @ probe)[rows]
    persons, person_of = np.unique(view.persons[rows], return_inverse=True)
    best = np.full(len(persons), -np.inf, dtype=np.float32)
    np.maximum.at(best, person_of, scores)
    last = np.partition(best, -top_k)[-top_k] if top_k < len(persons) else np.float32(-np.inf)
    # Both sides of a comparison carry the rounding of the scan, hence twice the slack.
    slack = _slack(view)
    best_here = best[person_of]
    near = (best_here >= last - 2 * slack) & (scores >= best_here - 2 * slack)
    return _ranked(view, probe, rows[near], top_k)


def _ranked(view: View, probe: NDArray[np.float32], rows: NDArray[np.int64], top_k: int) -> list[Hit]:
    rows = view.visible(rows)
    scores = cosines(view.vectors[rows], probe)
    order = np.argsort(-scores, kind="stable")
    ranking = list(zip(scores[order].tolist(), rows[order].tolist(), view.persons[rows[order]].tolist(), strict=True))
    hits: dict[int, Hit] = {}
    # An id is read only where it is told or decides: most candidates are neither.
    for score, group in groupby(ranking, key=itemgetter(0)):
        tied = [(view.face_id(row), person) for _, row, person in group]
        for face_id, person in sorted(tied) if len(tied) > 1 else tied:
            if person not in hits:
                hits[person] = Hit(person, face_id, score)
                if len(hits) == top_k:
                    return list(hits.values())
    return list(hits.values())
