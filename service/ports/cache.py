"""What was computed before: what the use cases need of a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain import Detection, FaceQuality


@dataclass(frozen=True, slots=True, eq=False)
class KnownFace:
    """A face of a picture without its pixels.

    Attributes:
        key: under which the cache has its embedding: the digest of its crop.
        embedding: (d,) float32 of unit length.
        strict_issues: as in `FoundFace`.
    """

    detection: Detection
    quality: FaceQuality
    strict_issues: tuple[str, ...]
    key: str
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class KnownPicture:
    """All that analysis and embedding tell of a picture; members as in `AnalysedPicture`."""

    width: int
    height: int
    faces: tuple[KnownFace, ...]
    faces_total: int


class EmbeddingCache(Protocol):
    """Remembers embeddings by the digest of a crop, and what whole pictures showed.

    Never raises, and never lets anybody wait for an answer past its timeout: trouble is a miss. What it says of a
    picture it says with the embeddings that it has at that moment: a picture with a face whose embedding it was told to
    forget is a miss.
    """

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """One embedding or None for each key."""

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """Remember embeddings, as far as possible."""

    async def seen(self, picture: str) -> KnownPicture | None:
        """What a picture showed, by its key: all that decides about it, hashed; None when that is not known (any
        more).
        """

    async def saw(self, picture: str, known: KnownPicture) -> None:
        """Remember what a picture showed, and the embeddings of its faces, as far as possible."""

    async def remove(self, keys: Sequence[str]) -> int | None:
        """Forget embeddings, and every picture that showed one of these faces; how many entries were there.

        None when the cache does not answer: then they are forgotten as soon as it does, and in any case at the end of
        their lifetime.
        """

    async def close(self) -> None:
        """Let go of connections."""
