"""From bytes of pictures to embeddings: what the use cases need of detector, analyser and networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain import AttributeReading, Detection, FaceQuality


class Detector(Protocol):
    """Finds faces. Safe to call from several threads at once; blocks, so never call it on the event loop."""

    @property
    def identity(self) -> str:
        """Names everything that decides what it finds: equal names find the same in the same picture."""

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a (height, width, 3) uint8 BGR picture, most confident first, in its pixels."""


@dataclass(frozen=True, slots=True)
class BoxView:
    """A way to cut a face out by its box: upright with the picture, with its surroundings.

    Attributes:
        scale: how many times the box's sides the window has.
        side_px: of the square that it is brought to.
        shape: of the window: the square of the box's longer side, or the box's own, which is then stretched.
        outside: what is done where the picture ends: it is black there, or the window is moved and made smaller until
            it lies inside.
    """

    scale: float
    side_px: int
    shape: Literal["square", "box"] = "square"
    outside: Literal["black", "inside"] = "black"


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """A face that was found, measured and cut out.

    Attributes:
        crop: (112, 112, 3) uint8, BGR, aligned by the contract.
        views: (side_px, side_px, 3) uint8, BGR, each of those that were asked for.
        strict_issues: what falls short of the strict enrolment gate; `quality.issues` is of the standard one.
    """

    detection: Detection
    quality: FaceQuality
    crop: NDArray[np.uint8]
    strict_issues: tuple[str, ...] = ()
    views: Mapping[BoxView, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedPicture:
    """An upright picture's size in pixels and its faces, largest first.

    Attributes:
        faces_total: faces found, of which `faces` holds the first `max_faces`.
        timings_ms: wall time of each stage.
    """

    width: int
    height: int
    faces: tuple[FoundFace, ...]
    faces_total: int
    timings_ms: Mapping[str, float]


class PictureAnalyser(Protocol):
    """Bytes of a picture to aligned faces, off the event loop, with a bounded number of pictures at a time."""

    @property
    def identity(self) -> str:
        """Names everything but the picture and `max_faces` that decides about an analysis."""

    async def analyse(self, picture: bytes, *, max_faces: int, views: Collection[BoxView] = ()) -> AnalysedPicture:
        """Decode, detect, align and assess.

        Args:
            views: to cut out of the picture of each face beside the aligned crop, in its full resolution.

        Raises:
            ImageError: one of its kinds, when the bytes are not an acceptable picture.
            Overloaded: too many pictures are waiting, or this one waited too long.
        """

    async def encode(self, crop: NDArray[np.uint8]) -> bytes:
        """A (112, 112, 3) uint8 BGR crop as a PNG file."""


class Embedder(Protocol):
    """Turns aligned crops into embeddings, gathering concurrent callers into batches."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""

    @property
    def space_id(self) -> str:
        """Name of the embedding space."""

    async def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed crops of one request.

        Args:
            crops: each (112, 112, 3) uint8, BGR, aligned by the contract.

        Returns:
            (n, dimension) float32 of unit length, in the order given.

        Raises:
            Overloaded: the queue is full or the deadline has passed.
            InvalidEmbedding: the network answered with a vector that has no direction.
        """


@dataclass(frozen=True, slots=True)
class AttributesTold:
    """What networks say of faces.

    Attributes:
        faces: in the order given, readings by the attribute's name.
        timings_ms: wall time until each attribute was known; those of networks that run side by side overlap.
    """

    faces: Sequence[Mapping[str, AttributeReading]]
    timings_ms: Mapping[str, float]


class AttributeReader(Protocol):
    """Tells attributes of faces by networks, gathering concurrent callers into batches."""

    @property
    def names(self) -> frozenset[str]:
        """The attributes that it can tell."""

    def views(self, asked: Collection[str]) -> frozenset[BoxView]:
        """The views of a face that it needs for these attributes, beside the aligned crop."""

    async def read(self, faces: Sequence[FoundFace], asked: Collection[str]) -> AttributesTold:
        """Tell these attributes, of `names`, of faces that have the views for them.

        Raises:
            Overloaded: a queue is full or the deadline has passed.
            AttributeUnavailable: a network gave no finite answer about one of the faces.
        """
