"""Data sets in the forms that they are published in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from model_training.data.faces import DataError
from model_training.data.pictures import MAX_PICTURE_BYTES, Picture, Source, pictures_in
from model_training.data.recordio import RecordFile
from model_training.data.webdataset import WebDataset, tars_in

Format = Literal["auto", "pictures", "recordio", "webdataset"]


class PictureFolder:
    """All pictures below a folder, by path, each named by its path in the folder."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder
        self._paths = pictures_in(folder)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int = 0) -> Iterator[Picture]:
        """See `Source`."""
        for path in self._paths[start:]:
            yield Picture(path.relative_to(self._folder).as_posix(), _bytes_of(path))


def open_source(path: Path, form: Format = "auto") -> Source:
    """A data set at a path.

    Args:
        path: a folder of pictures, a `.rec` file or a folder with one, a tar file or a folder of tar files.
        form: which of these; by default the path's content says.

    Raises:
        DataError: the path holds none of them, or not the one asked for.
    """
    if form == "auto":
        form = _form_of(path)
    if form == "pictures":
        if not path.is_dir():
            raise DataError(f"{path} is no folder of pictures")
        return PictureFolder(path)
    if form == "webdataset":
        return WebDataset(path)
    return RecordFile(_records_at(path))


def _form_of(path: Path) -> Format:
    if path.suffix == ".rec" or (path.is_dir() and any(path.glob("*.rec"))):
        return "recordio"
    if path.is_file() or (path.is_dir() and tars_in(path)):
        return "webdataset"
    return "pictures"


def _records_at(path: Path) -> Path:
    found = [path] if path.is_file() else sorted(path.glob("*.rec"))
    if len(found) != 1:
        raise DataError(f"{path} holds {len(found)} .rec files, where one is wanted")
    return found[0]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else b""
    except OSError:
        return b""
