"""From picture files to embeddings, for every protocol alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Picture(Protocol):
    """A file, or a picture inside one; hashable."""

    @property
    def name(self) -> str:
        """What to call it."""

    def read_bytes(self) -> bytes:
        """It, encoded."""


# Picture to unit embedding (d,), or None where no face is found.
Embed = Callable[[Picture], Vectors | None]
# Wraps the pictures, for a progress bar.
Progress = Callable[[Iterable[Picture]], Iterable[Picture]]
# Pictures of each person.
People = Mapping[str, Sequence[Picture]]


class ProtocolError(ValueError):
    """Pictures or pairs are not what the protocol needs."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of people's pictures.

    Attributes:
        vectors: (n, d) of unit length.
        names: whose picture each is.
        missed: pictures in which no face was found.
    """

    vectors: Vectors
    names: tuple[str, ...]
    missed: tuple[Picture, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) a number for each name."""
        return np.unique(self.names, return_inverse=True)[1].astype(np.int64)


def embedded(people: People, embed: Embed, *, progress: Progress = iter) -> Embedded:
    """Embed all pictures, each once.

    Raises:
        ProtocolError: none shows a face.
    """
    owner = {picture: name for name, pictures in people.items() for picture in pictures}
    found = [(picture, embed(picture)) for picture in progress(list(owner))]
    shown = [(picture, vector) for picture, vector in found if vector is not None]
    if not shown:
        raise ProtocolError(f"no face in any of {len(owner)} pictures")
    return Embedded(
        np.stack([vector for _, vector in shown]),
        tuple(owner[picture] for picture, _ in shown),
        tuple(picture for picture, vector in found if vector is None),
    )
