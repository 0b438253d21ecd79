"""Search and comparison among distractors: the rank curve, FNIR at a fixed FPIR, and TAR at a fixed FAR.

One picture of each person is their mate in the gallery, their other pictures are probes. A probe's gallery is its mate
and the distractors, as in MegaFace: Kemelmacher-Shlizerman et al., "The MegaFace Benchmark: 1 Million Faces for
Recognition at Scale" (CVPR 2016). People with one picture are strangers, who have no mate. Every person weighs the
same, however many pictures there are of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.bootstrap import DRAWS, Interval, Numbers, people_drawn, percentiles, ratio_interval
from model_training.protocols.distractors import NOBODY, Distractors, Faces, Labels
from model_training.protocols.embedding import Embed, Embedded, People, Progress, ProtocolError, Vectors, embedded
from model_training.protocols.metrics import require_support, supports, threshold_at

FPIR = 0.01
# MegaFace's, of all comparisons between probes and distractors.
FAR = 1e-6
RANKS = 20
# Small galleries depend on who is in them, so several are drawn; a large one is much like the next.
_DRAWN_SEVERAL_TIMES = 10_000
_GALLERIES = 5
# Only the highest hundredth of impostor scores is counted by value, in steps of 0.0001.
_COUNTED_SHARE = 0.01
_STEPS = 10_000
# Of one block of scores: 64 MiB.
_SCORES_AT_ONCE = 2**24


@dataclass(frozen=True)
class Probes:
    """Who is looked for.

    Attributes:
        mated: (m, d) unit vectors, probes of people who are in the gallery.
        similarity: (m,) float32, cosine of each to its mate.
        person: (m,) whose probe each is, 0 to `persons - 1`.
        unseen: (persons,) probes of each person in which no face was found; they count as missed.
        strangers: (s, d) unit vectors, one probe of each person who is not.
        label, stranger_label: (m,), (s,) of whom; distractors drawn around the same label are left out of the search.
    """

    mated: Vectors
    similarity: Vectors
    person: NDArray[np.int64]
    unseen: NDArray[np.int64]
    strangers: Vectors
    label: Labels
    stranger_label: Labels

    @property
    def persons(self) -> int:
        """People who are in the gallery."""
        return len(self.unseen)


@dataclass(frozen=True)
class IdentificationFigure:
    """One number of distractors.

    Attributes:
        distractors: faces in the gallery besides the mate.
        kind: where they come from, `pictures`, `smoothed` or `normal`.
        rank_one: share of probes with their mate before all distractors, every person weighing the same.
        rank_one_interval: 95 %, of drawing people again.
        cmc: (20,) share of probes with their mate among the first 1, 2, ... 20.
        fnir: share of probes whose mate was not first or did not reach the threshold.
        fnir_interval: 95 %, of drawing enrolled people and strangers again.
        threshold: cosine that a share `FPIR` of the strangers reach, mean over galleries.
        tar: share of probes that are nearer to their mate than all but a share `FAR` of comparisons of probes with
            distractors; None where these are too few.
        tar_interval: 95 %, of drawing people again while the threshold stays.
        galleries: how many were drawn.
    """

    distractors: int
    kind: str
    rank_one: float
    rank_one_interval: Interval
    cmc: tuple[float, ...]
    fnir: float
    fnir_interval: Interval
    threshold: float
    tar: float | None
    tar_interval: Interval | None
    galleries: int


def identification(
    people: People,
    embed: Embed,
    distractors: Callable[[Embedded], Distractors],
    sizes: Sequence[int],
    *,
    fpir: float = FPIR,
    seed: int = 0,
    progress: Progress = iter,
) -> list[IdentificationFigure]:
    """Rank-1 and FNIR by number of distractors.

    Args:
        people: pictures of each; nobody of them is among the distractors.
        embed: called once for each picture.
        distractors: made of the people's embeddings, so that a density can be fitted to them.
        sizes: numbers of distractors; one that there are not is left out.

    Raises:
        ProtocolError: nobody has two pictures that show a face.
        TooFewImpostors: fewer than `10 / fpir` people with one picture.
    """
    found = embedded(people, embed, progress=progress)
    probes = probes_of(found, people, seed=seed)
    return identify(probes, distractors(found), sizes, fpir=fpir, seed=seed)


def probes_of(found: Embedded, people: People, *, seed: int = 0) -> Probes:
    """One picture drawn of each person as mate, the others as probes; people with one picture as strangers.

    A picture without a face is no mate. It is a probe that nobody will find, of a person who has a mate; of a person
    with no picture that shows a face there is nothing to ask.

    Raises:
        ProtocolError: nobody has two pictures, one of them with a face.
    """
    missed = set(found.missed)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(found.names):
        rows_of.setdefault(name, []).append(row)
    rng = np.random.default_rng(seed)
    mates, probes, person, unseen, strangers = [], [], [], [], []
    for name in sorted(rows_of):
        rows = rng.permutation(rows_of[name]).tolist()
        faceless = sum(picture in missed for picture in people[name])
        if len(rows) + faceless == 1:
            strangers.append(rows[0])
            continue
        mates += [rows[0]] * (len(rows) - 1)
        probes += rows[1:]
        person += [len(unseen)] * (len(rows) - 1)
        unseen.append(faceless)
    if not probes:
        raise ProtocolError("nobody has two pictures that show a face")
    mated = found.vectors[probes]
    return Probes(
        mated=mated,
        similarity=np.einsum("nd,nd->n", mated, found.vectors[mates]),
        person=np.array(person, dtype=np.int64),
        unseen=np.array(unseen, dtype=np.int64),
        strangers=found.vectors[strangers],
        label=found.labels[probes],
        stranger_label=found.labels[strangers],
    )


def identify(
    probes: Probes, distractors: Distractors, sizes: Sequence[int], *, fpir: float = FPIR, seed: int = 0
) -> list[IdentificationFigure]:
    """The figures of `identification`, of embeddings; memory does not grow with the number of distractors.

    Raises:
        TooFewImpostors: fewer than `10 / fpir` strangers.
    """
    require_support(len(probes.strangers), fpir, events="strangers", rate_name="an FPIR")
    figures = []
    for size in sizes:
        if size > distractors.available:
            continue
        galleries = _GALLERIES if size <= _DRAWN_SEVERAL_TIMES else 1
        tallies = [_tally(probes, distractors.drawn(size, draw)) for draw in range(galleries)]
        figures.append(_figure(probes, tallies, size, distractors.kind, fpir, seed))
    return figures


@dataclass(frozen=True)
class _Tally:
    """Of one gallery.

    Attributes:
        before: (m,) distractors that came before each probe's mate.
        best: (s,) each stranger's best match.
        high: (2 * _STEPS + 1,) comparisons of probes with distractors by cosine, only the highest.
        compared: how many there were in all.
    """

    before: NDArray[np.int64]
    best: Vectors
    high: NDArray[np.int64]
    compared: int


def _tally(probes: Probes, chunks: Iterator[Faces]) -> _Tally:
    before = np.zeros(len(probes.mated), dtype=np.int64)
    best = np.full(len(probes.strangers), -1, dtype=np.float32)
    high, compared, floor = np.zeros(2 * _STEPS + 2, dtype=np.int64), 0, None
    for faces in chunks:
        for rows, scores in _scores(probes.mated, probes.label, faces):
            # A distractor that is as near as the mate comes before it.
            before[rows] += np.count_nonzero(scores >= probes.similarity[rows, None], axis=1)
            if floor is None:
                floor = np.quantile(scores, 1 - _COUNTED_SHARE)
            steps = np.ceil((scores[scores >= floor] + 1) * _STEPS).astype(np.int64)
            high += np.bincount(np.clip(steps, 0, len(high) - 1), minlength=len(high))
            compared += int(np.count_nonzero(scores > -2))
        for rows, scores in _scores(probes.strangers, probes.stranger_label, faces):
            np.maximum(best[rows], scores.max(axis=1), out=best[rows])
    return _Tally(before, best, high, compared)


def _scores(vectors: Vectors, labels: Labels, faces: Faces) -> Iterator[tuple[slice, Vectors]]:
    """Blocks of cosines; -2 where a face was drawn around the very person."""
    at_once = max(1, _SCORES_AT_ONCE // len(faces.vectors))
    order = np.argsort(faces.like, kind="stable")
    like = faces.like[order]
    for start in range(0, len(vectors), at_once):
        rows = slice(start, start + at_once)
        scores = vectors[rows] @ faces.vectors.T
        first, end = (np.searchsorted(like, labels[rows], side=side) for side in ("left", "right"))
        own = np.where(labels[rows] == NOBODY, 0, end - first)
        row = np.repeat(np.arange(len(own)), own)
        scores[row, order[np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own) + np.repeat(first, own)]] = -2
        yield rows, scores


def _figure(
    probes: Probes, tallies: Sequence[_Tally], size: int, kind: str, fpir: float, seed: int
) -> IdentificationFigure:
    weights = probe_weights(probes)
    everybody = np.ones(probes.persons)
    firsts = np.mean([_share(probes, weights, tally.before == 0) for tally in tallies], axis=0)
    cmc = [np.mean([_share(probes, weights, tally.before < rank).mean() for tally in tallies]) for rank in
           range(1, RANKS + 1)]  # fmt: skip
    thresholds = [threshold_at(tally.best, fpir) for tally in tallies]
    missed = [
        1 - _share(probes, weights, (tally.before == 0) & (probes.similarity >= least)).mean()
        for tally, least in zip(tallies, thresholds, strict=True)
    ]
    accepted = [_accepted(probes, tally) for tally in tallies]
    tars = np.mean([_share(probes, weights, each) for each in accepted if each is not None] or [[]], axis=0)
    times = [
        np.concatenate(list(people_drawn(count, DRAWS, np.random.default_rng([seed, part]))))
        for part, count in enumerate((len(probes.strangers), probes.persons))
    ]
    drawn_again = np.mean([_fnir_drawn_again(probes, weights, tally, fpir, *times) for tally in tallies], axis=0)
    return IdentificationFigure(
        distractors=size,
        kind=kind,
        rank_one=float(firsts.mean()),
        rank_one_interval=ratio_interval(firsts, everybody, seed=seed),
        cmc=tuple(float(share) for share in cmc),
        fnir=float(np.mean(missed)),
        fnir_interval=percentiles(drawn_again),
        threshold=float(np.mean(thresholds)),
        tar=float(tars.mean()) if len(tars) else None,
        tar_interval=ratio_interval(tars, everybody, seed=seed) if len(tars) else None,
        galleries=len(tallies),
    )


def _accepted(probes: Probes, tally: _Tally) -> NDArray[np.bool_] | None:
    """(m,) whether a comparison of a probe with its mate is accepted at `FAR`; None where nobody can say."""
    if not supports(tally.compared, FAR):
        return None
    # above[i]: comparisons that score more than i steps.
    above = tally.high[::-1].cumsum()[::-1] - tally.high
    threshold = np.flatnonzero(above <= tally.compared * FAR)[0] / _STEPS - 1
    return probes.similarity > threshold


def probe_weights(probes: Probes) -> Numbers:
    """(m,) so that the probes of each person, those without a face included, weigh 1 together."""
    counts = np.bincount(probes.person, minlength=probes.persons) + probes.unseen
    return np.asarray(1 / counts[probes.person], dtype=np.float64)


def _share(probes: Probes, weights: Numbers, right: NDArray[np.bool_]) -> Numbers:
    """(persons,) share of each person's probes that are right."""
    return np.bincount(probes.person, weights=weights * right, minlength=probes.persons)


def _fnir_drawn_again(
    probes: Probes, weights: Numbers, tally: _Tally, fpir: float, strangers: Numbers, people: Numbers
) -> Numbers:
    """(draws,) FNIR where strangers, (draws, s), and people, (draws, persons), are there as often as it says."""
    order = np.argsort(-tally.best, kind="stable")
    allowed = int(np.floor(round(len(order) * fpir, 9)))
    thresholds = tally.best[order][(np.cumsum(strangers[:, order], axis=1) > allowed).argmax(axis=1)]
    found = np.empty(len(people))
    # Thresholds are scores of strangers, and few of them come into question.
    for threshold in np.unique(thresholds):
        drawn = thresholds == threshold
        share = _share(probes, weights, (tally.before == 0) & (probes.similarity > threshold))
        found[drawn] = people[drawn] @ share / probes.persons
    return 1 - found
