"""Templates: what several pictures and videos of one person say together, compared 1:1 and searched for 1:N.

Source: Whitelam et al., "IARPA Janus Benchmark-B Face Dataset" (CVPRW 2017), Maze et al., "IARPA Janus Benchmark - C"
(ICB 2018); averaging within media first, so that a video's hundred frames do not outvote a picture, as in Crosswhite et
al., "Template adaptation for face verification and identification" (FG 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.bootstrap import Interval, ratio_interval
from model_training.protocols.embedding import Embed, Picture, Progress, ProtocolError, Vectors
from model_training.protocols.metrics import supports, threshold_at

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FPIRS = (0.1, 0.01)
RANKS = 20
_PAIRS_AT_ONCE = 2**16
# Rank of somebody of whom no face is known.
_NEVER = 2**31

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class TemplateFace:
    """A face in a picture.

    Attributes:
        landmarks: five points (x, y) as the service's contract has them, in pixels, where the data set knows them.
        box: x, y, width, height in pixels, where it knows that instead.
    """

    path: Path
    landmarks: tuple[tuple[float, float], ...] | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def name(self) -> str:
        """Of the picture."""
        return self.path.name

    def read_bytes(self) -> bytes:
        """The picture, encoded."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class TemplateFaces:
    """Which faces make which template.

    Attributes:
        faces: (n) of them.
        template: (n,) the template that each belongs to.
        media: (n,) the picture or video that it comes from; numbers mean the same in one template only.
    """

    faces: Sequence[Picture]
    template: Numbers
    media: Numbers


@dataclass(frozen=True)
class Templates:
    """One vector a template.

    Attributes:
        vectors: (t, d) of unit length; zero where no face of the template was found.
        row_of: row by number of the template.
        empty: templates without a face, which are like nobody: their comparisons score -1.
        missed: faces that were not found.
    """

    vectors: Vectors
    row_of: Mapping[int, int]
    empty: frozenset[int]
    missed: int

    def rows(self, templates: Numbers) -> Numbers:
        """(m,) rows of (m,) templates.

        Raises:
            ProtocolError: no face says what one of them looks like.
        """
        try:
            return np.array([self.row_of[int(each)] for each in templates], dtype=np.int64)
        except KeyError as error:
            raise ProtocolError(f"template {error} has no faces") from error


def templates(listed: TemplateFaces, embed: Embed, *, progress: Progress = iter) -> Templates:
    """Average the faces of each medium, then the media of each template.

    Args:
        embed: called once for each face of each template.

    Raises:
        ProtocolError: there is none, or no face was found at all.
    """
    order = np.lexsort((listed.media, listed.template))
    vectors: list[Vectors | None] = []
    row_of: dict[int, int] = {}
    of_media: dict[int, list[Vectors]] = {}
    missed = 0
    faces = iter(progress([listed.faces[at] for at in order]))
    for place, at in enumerate(order):
        found = embed(next(faces))
        missed += found is None
        if found is not None:
            of_media.setdefault(int(listed.media[at]), []).append(found)
        if place + 1 == len(order) or listed.template[order[place + 1]] != listed.template[at]:
            row_of[int(listed.template[at])] = len(vectors)
            vectors.append(_averaged(of_media))
            of_media = {}
    shown = next((vector for vector in vectors if vector is not None), None)
    if shown is None:
        raise ProtocolError(f"no face in any of {len(order)} pictures")
    empty = frozenset(template for template, row in row_of.items() if vectors[row] is None)
    filled = [np.zeros_like(shown) if vector is None else vector for vector in vectors]
    return Templates(np.stack(filled), row_of, empty, missed)


def _averaged(of_media: Mapping[int, Sequence[Vectors]]) -> Vectors | None:
    if not of_media:
        return None
    total = np.sum([np.mean(found, axis=0) for found in of_media.values()], axis=0)
    length = np.linalg.norm(total)
    # Faces that point in opposite directions say nothing together.
    return np.asarray(total / length, dtype=np.float32) if length > 1e-9 else None


@dataclass(frozen=True)
class TemplateVerification:
    """1:1 comparison of templates.

    Attributes:
        tar: true accept rate by false accept rate, for the rates that the impostor count supports.
        intervals: 95 % of each, of drawing people again while the threshold stays.
        mates, impostors: comparisons.
    """

    tar: dict[float, float]
    intervals: dict[float, Interval]
    mates: int
    impostors: int


def verify_templates(
    made: Templates, first: Numbers, second: Numbers, same: NDArray[np.bool_], *, fars: Sequence[float] = FARS
) -> TemplateVerification:
    """TAR at fixed FARs over the comparisons that a protocol lists.

    Args:
        first, second: (m,) templates of each comparison.
        same: (m,) whether they are of one person.

    Raises:
        ProtocolError: no comparison of one person, or a template without faces in the list.
    """
    if not same.any():
        raise ProtocolError("no comparison is of one person")
    scores = np.concatenate(list(_scores(made, made.rows(first), made.rows(second))))
    impostors = scores[~same]
    person = _people(first[same], second[same])
    comparisons = np.bincount(person).astype(np.float64)
    tar, intervals = {}, {}
    for far in (far for far in fars if supports(len(impostors), far)):
        accepted = scores[same] >= threshold_at(impostors, far)
        tar[far] = float(accepted.mean())
        intervals[far] = ratio_interval(np.bincount(person, weights=accepted), comparisons)
    return TemplateVerification(tar, intervals, int(same.sum()), len(impostors))


def _scores(made: Templates, first: Numbers, second: Numbers) -> Iterator[Vectors]:
    empty = np.zeros(len(made.vectors), dtype=bool)
    empty[[made.row_of[template] for template in made.empty]] = True
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        one, other = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
        cosines = np.einsum("nd,nd->n", made.vectors[one], made.vectors[other])
        yield np.where(empty[one] | empty[other], np.float32(-1), cosines)


def _people(first: Numbers, second: Numbers) -> Numbers:
    """(m,) a number for the person of each comparison: templates that are compared as one person's are one person's."""
    leader: dict[int, int] = {}

    def find(template: int) -> int:
        while (above := leader.setdefault(template, template)) != template:
            leader[template] = leader[above]
            template = above
        return template

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        leader[find(one)] = find(other)
    return np.unique([find(one) for one in first.tolist()], return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class TemplateSearch:
    """1:N search of one gallery.

    Attributes:
        cmc: (20,) share of mated probes whose person is among the first 1, 2, ... 20.
        fnir: share of mated probes whose person is not first or not above the threshold, by FPIR.
        intervals: 95 % of rank-1 (key 0) and of each FNIR, of drawing people again while the threshold stays.
        mated, strangers: probes of people who are in the gallery, and who are not.
    """

    cmc: tuple[float, ...]
    fnir: dict[float, float]
    intervals: dict[float, Interval]
    mated: int
    strangers: int


def search_templates(
    made: Templates, gallery: Mapping[int, int], probes: Mapping[int, int], *, fpirs: Sequence[float] = FPIRS
) -> TemplateSearch:
    """Rank curve and FNIR at fixed FPIRs.

    Args:
        gallery, probes: person by template.
        fpirs: rates to report; one that the number of strangers cannot support is left out.

    Raises:
        ProtocolError: nobody who is looked for is in the gallery.
    """
    persons = np.array(list(gallery.values()))
    of_probes = np.array(list(probes.values()))
    enrolled = made.vectors[made.rows(np.array(list(gallery)))]
    asked = made.vectors[made.rows(np.array(list(probes)))]
    mated = np.isin(of_probes, persons)
    if not mated.any():
        raise ProtocolError("no probe is of anybody in the gallery")
    unknown = np.array([template in made.empty for template in probes])
    absent = np.array([template in made.empty for template in gallery])
    best, own, rank = np.empty(len(asked)), np.full(len(asked), -1.0), np.full(len(asked), _NEVER)
    at_once = max(1, 2**22 // len(enrolled))
    for start in range(0, len(asked), at_once):
        rows = slice(start, start + at_once)
        scores = np.where(absent[None, :] | unknown[rows, None], np.float32(-1), asked[rows] @ enrolled.T)
        theirs = persons[None, :] == of_probes[rows, None]
        best[rows] = scores.max(axis=1)
        own[rows] = np.where(theirs, scores, -2).max(axis=1)
        # Somebody else who is as near comes first; who has no face has no rank.
        before = np.count_nonzero((scores >= own[rows, None]) & ~theirs, axis=1)
        rank[rows] = np.where(own[rows] > -1, before + 1, _NEVER)
    counts = np.bincount(np.unique(of_probes[mated], return_inverse=True)[1]).astype(np.float64)

    def interval(wrong: NDArray[np.bool_]) -> Interval:
        person = np.unique(of_probes[mated], return_inverse=True)[1]
        return ratio_interval(np.bincount(person, weights=wrong), counts)

    strangers = best[~mated]
    fnir: dict[float, float] = {}
    intervals = {0.0: interval(rank[mated] == 1)}
    for fpir in (fpir for fpir in fpirs if supports(len(strangers), fpir)):
        missed = (rank[mated] > 1) | (own[mated] < threshold_at(strangers, fpir))
        fnir[fpir], intervals[fpir] = float(missed.mean()), interval(missed)
    cmc = tuple(float((rank[mated] <= number).mean()) for number in range(1, RANKS + 1))
    return TemplateSearch(cmc, fnir, intervals, int(mated.sum()), len(strangers))
