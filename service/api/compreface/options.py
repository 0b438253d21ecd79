"""Query parameters that the calls with pictures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query

from service.domain import AnalysedFace
from service.settings import Settings

FoundT = TypeVar("FoundT")

# Plugins of CompreFace that are attributes here.
ATTRIBUTE_PLUGINS = ("age", "gender", "mask")

DetProbThreshold = Annotated[
    float | None,
    Query(
        ge=0, le=1, description="Faces that the detector is less sure of are passed over; it gives none under its own."
    ),
]


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """Which faces of a picture are asked for, and what of them.

    Attributes:
        limit: how many, largest first; 0 is all.
        det_prob_threshold: least confidence of the detector.
        plugins: names of CompreFace's plugins; those that are not here say nothing.
        status: whether times and versions are told.
    """

    limit: int
    det_prob_threshold: float | None
    plugins: frozenset[str]
    status: bool

    def max_faces(self, settings: Settings) -> int | None:
        """How many faces to look at; None is as many as the service ever does."""
        # Those that fall to the threshold are known only when all have been looked at.
        if self.limit == 0 or self.det_prob_threshold is not None:
            return None
        return min(self.limit, settings.max_faces)

    def attributes(self, available: frozenset[str]) -> frozenset[str]:
        """What else to find out of each face; plugins that are not here say nothing."""
        return available & self.plugins & frozenset(ATTRIBUTE_PLUGINS)

    def chosen(self, found: Iterable[FoundT], face_of: Callable[[FoundT], AnalysedFace]) -> tuple[FoundT, ...]:
        """What is asked for, of some in order of size."""
        least = self.det_prob_threshold or 0.0
        admitted = tuple(each for each in found if face_of(each).detection.score >= least)
        return admitted[: self.limit] if self.limit else admitted


async def _face_options(
    limit: Annotated[int, Query(ge=0, description="Faces answered for, largest first; 0 is all.")] = 0,
    det_prob_threshold: DetProbThreshold = None,
    face_plugins: Annotated[
        str,
        Query(
            max_length=200,
            description="`landmarks`, `calculator`, `pose`, `mask`, and where the service has networks for them `age` "
            "and `gender`, with commas; others say nothing.",
        ),
    ] = "",
    *,
    status: Annotated[bool, Query(description="Tell times and versions too.")] = False,
) -> FaceOptions:
    plugins = frozenset(name.strip().lower() for name in face_plugins.split(","))
    return FaceOptions(limit, det_prob_threshold, plugins, status)


Options = Annotated[FaceOptions, Depends(_face_options)]
