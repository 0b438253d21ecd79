"""WebDataset: tar files in which the files of one sample follow each other and share a name up to its first dot."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from model_training.data.faces import DataError
from model_training.data.pictures import MAX_PICTURE_BYTES, Picture, is_picture

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_LABEL_ENDINGS = ("cls", "id", "json")
# Of the keys that a sample's JSON may name its person by, the first that it has counts.
_LABEL_KEYS = ("identity", "label", "cls", "class")
_MAX_LABEL_BYTES = 65_536
_MAX_LABEL_CHARACTERS = 200


class WebDataset:
    """The pictures of one tar file, or of all in a folder, read as a stream from the first to the last byte.

    A sample's person is what its `.cls`, `.id` or `.json` file says (the JSON by `identity`, `label`, `cls` or
    `class`), else the folder it lies in. Of several pictures in a sample the first counts.

    Args:
        path: a tar file, compressed or not, or a folder of such.

    Raises:
        DataError: there is none.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._shards = [path] if path.is_file() else tars_in(path)
        if not self._shards:
            raise DataError(f"no tar file in {path}")

    def __len__(self) -> int:
        return 0

    def read(self, start: int = 0) -> Iterator[Picture]:
        """Pictures from number `start` on, named `person/shard-key`. See `Source`."""
        number = 0
        for shard in self._shards:
            for picture in _samples(shard):
                if number >= start:
                    yield picture
                number += 1


def tars_in(folder: Path) -> list[Path]:
    """The tar files of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(_TAR_ENDINGS))


def _samples(shard: Path) -> Iterator[Picture]:
    """A picture a sample, of those that have one."""
    key, picture, label = "", None, ""
    try:
        with tarfile.open(shard, "r|*") as archive:
            for member in archive:
                # Kept by tarfile for random access; a stream of millions has no use for them.
                archive.members = []  # type: ignore[attr-defined]
                if not member.isfile():
                    continue
                base, _, ending = PurePosixPath(member.name).name.partition(".")
                of = (PurePosixPath(member.name).parent / base).as_posix()
                if of != key:
                    if picture is not None:
                        yield _named(shard, key, label, picture)
                    key, picture, label = of, None, ""
                if is_picture(member.name) and picture is None:
                    picture = _content(archive, member, MAX_PICTURE_BYTES)
                elif ending.lower() in _LABEL_ENDINGS and not label:
                    label = _label(_content(archive, member, _MAX_LABEL_BYTES), ending.lower())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard} is no whole tar file: {error}") from error
    if picture is not None:
        yield _named(shard, key, label, picture)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, at_most: int) -> bytes:
    """A member's bytes; none if it has too many."""
    if member.size > at_most:
        return b""
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _label(content: bytes, ending: str) -> str:
    """The person that a label file names, as a single path component; empty where it names none."""
    text = content.decode(errors="replace").strip()
    if ending == "json":
        try:
            described = json.loads(text)
        except ValueError:
            return ""
        named = [described[key] for key in _LABEL_KEYS if key in described] if isinstance(described, dict) else []
        text = str(named[0]) if named and isinstance(named[0], str | int) else ""
    return text.replace("/", "_").replace("\x00", "_")[:_MAX_LABEL_CHARACTERS]


def _named(shard: Path, key: str, label: str, picture: bytes) -> Picture:
    place = PurePosixPath(key)
    return Picture(f"{label or place.parent.as_posix()}/{shard.name.partition('.')[0]}-{place.name}", picture)
