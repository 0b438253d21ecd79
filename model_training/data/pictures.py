"""Which pictures there are, and which of them may train: those of nobody whom a test set names."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

_PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# A picture of more bytes is left out: the limit of the service.
MAX_PICTURE_BYTES = 20_000_000


class Picture(NamedTuple):
    """An encoded picture of a data set.

    Attributes:
        source: its name within the set, `person/file` where the set knows whom it shows.
        data: the file; empty where it could not be read or is too large to be a picture.
    """

    source: str
    data: bytes


class Source(Protocol):
    """A data set that is read picture by picture, in an order that is always the same.

    Attributes:
        name: that of its file or folder.
    """

    name: str

    def __len__(self) -> int:
        """How many pictures there are; 0 where only reading it all could tell."""

    def read(self, start: int = 0) -> Iterator[Picture]:
        """Pictures from the one of number `start` on.

        Raises:
            DataError: the set is damaged or not of its format.
        """


def person_of(source: str) -> str:
    """Whom the picture of this name shows: the folder it lies in."""
    return PurePosixPath(source).parent.name


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture."""
    return PurePosixPath(name).suffix.lower() in _PICTURE_ENDINGS


def pictures_in(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if is_picture(path.name))


def people_in_pairs(pairs_file: Path) -> set[str]:
    """Names that a pairs file in LFW's format mentions."""
    rows = [line.split() for line in pairs_file.read_text().splitlines()[1:] if line.strip()]
    return {name for row in rows for name in ([row[0]] if len(row) == 3 else [row[0], row[2]])}


def without_people(pictures: Iterable[Path], names: set[str]) -> list[Path]:
    """Pictures whose folder names nobody in `names`: what keeps test identities out of training."""
    return [path for path in pictures if path.parent.name not in names]


def people_and_others(
    folder: Path, names: set[str], *, without: Container[str] = ()
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Pictures of the people named, by their sub-folders; and of everybody else the first one.

    Args:
        without: names of pictures, without ending, that are left out.
    """
    of: dict[str, list[Path]] = {}
    for picture in pictures_in(folder):
        if picture.stem not in without:
            of.setdefault(picture.parent.name, []).append(picture)
    people = {name: pictures for name, pictures in of.items() if name in names}
    return people, [pictures[0] for name, pictures in of.items() if name not in names]
