"""A data set's pictures to a folder of aligned faces, in several processes, going on where it was interrupted."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from model_training.data.alignment import Alignment, Crop, Detector, Lost, align_blocks
from model_training.data.faces import CROPS, SOURCES, DataError
from model_training.data.pictures import Picture, Source, person_of
from service.contract import CROP_SIDE_PX, sha256_of_file

JOURNAL = "prepared.json"
_NAMES = "sources.jsonl"
_BLOCK = 32
# Blocks between two entries of the journal: what an interruption costs is at most so much work.
_BLOCKS_AN_ENTRY = 16
_CROP_SHAPE = (CROP_SIDE_PX, CROP_SIDE_PX, 3)
_HEAD_BYTES = 128


@dataclass(frozen=True)
class Prepared:
    """What has become of a data set's pictures.

    Attributes:
        read: pictures so far.
        faces: stored crops.
        excluded: pictures of people who are to be left out.
        without_face: pictures that the detector found no face in.
        unreadable: files that are no picture, or too large a one.
        name_bytes: length of the list of the crops' pictures while it grows.
        finished: whether these are all.
    """

    read: int = 0
    faces: int = 0
    excluded: int = 0
    without_face: int = 0
    unreadable: int = 0
    name_bytes: int = 0
    finished: bool = False


@dataclass
class _Journal:
    """How a folder is prepared, and how far it has come."""

    path: Path
    how: dict[str, Any]
    state: Prepared = field(default_factory=Prepared)

    def resume(self) -> None:
        if not self.path.exists():
            return
        written = json.loads(self.path.read_text())
        if written["how"] != self.how:
            raise DataError(f"{self.path.parent} is prepared from other pictures or in another way")
        self.state = Prepared(**written["state"])

    def write(self) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as stream:
            stream.write(json.dumps({"how": self.how, "state": asdict(self.state)}, indent=1))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self.path)


def prepare_faces(
    source: Source,
    out: Path,
    alignment: Alignment,
    *,
    jobs: int = 1,
    exclude: frozenset[str] = frozenset(),
    detector: Detector | None = None,
) -> Prepared:
    """Store the aligned main face of every picture of a data set, as `AlignedFaces` opens them.

    Crops and the names of their pictures are appended to two files; a journal says up to where these are on disk. An
    interrupted run goes on from there, and ends with the same files as one that was not.

    Args:
        source: the pictures.
        out: the folder.
        alignment: how.
        jobs: processes.
        exclude: people whose pictures are left out.
        detector: instead of the alignment's, with one job.

    Raises:
        DataError: the folder was prepared from something else, the source is damaged, or no picture has a face.
        ContractError: the detector cannot be loaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = _Journal(out / JOURNAL, _how(source, alignment, exclude))
    journal.resume()
    if journal.state.finished:
        return journal.state
    if (out / SOURCES).exists() and not journal.path.exists():
        raise DataError(f"{out} holds faces already")
    with _appended(out / CROPS) as crops, _appended(out / _NAMES) as names:
        store = _Store(journal, crops, names)
        store.go_back()
        pictures = iter(tqdm(source.read(journal.state.read), **_bar(source, journal.state)))
        blocks, noted = tee(_blocks(pictures))
        chosen = ([p.data for p in block if person_of(p.source) not in exclude] for block in blocks)
        for number, found in enumerate(align_blocks(chosen, alignment, jobs, detector), 1):
            store.add(next(noted), iter(found), exclude)
            if number % _BLOCKS_AN_ENTRY == 0:
                store.commit()
        store.commit()
        state = journal.state
        if not state.faces:
            raise DataError(f"no face in any of {state.read - state.excluded} pictures")
        store.finish(out / SOURCES)
    (out / _NAMES).unlink()
    return journal.state


class _Store:
    """The growing files of a folder."""

    def __init__(self, journal: _Journal, crops: BinaryIO, names: BinaryIO) -> None:
        self._journal = journal
        self._crops, self._names = crops, names
        self._state = journal.state

    def go_back(self) -> None:
        """Cut off what was written after the journal's last entry."""
        self._head()
        self._crops.truncate(_HEAD_BYTES + self._state.faces * math.prod(_CROP_SHAPE))
        self._names.truncate(self._state.name_bytes)
        for stream in (self._crops, self._names):
            stream.seek(0, os.SEEK_END)

    def add(self, pictures: Sequence[Picture], found: Iterator[Crop | Lost], exclude: frozenset[str]) -> None:
        """What became of a block's pictures that are not of excluded people."""
        counts: Counter[str] = Counter(read=len(pictures))
        for picture in pictures:
            if person_of(picture.source) in exclude:
                counts["excluded"] += 1
                continue
            crop = next(found)
            if isinstance(crop, Lost):
                counts[crop.value] += 1
                continue
            counts["faces"] += 1
            self._crops.write(np.ascontiguousarray(crop).data)
            counts["name_bytes"] += self._names.write(json.dumps(picture.source).encode() + b"\n")
        self._state = replace(self._state, **{key: getattr(self._state, key) + n for key, n in counts.items()})

    def commit(self) -> None:
        """Bring all to the disk, and then say so."""
        for stream in (self._crops, self._names):
            stream.flush()
            os.fsync(stream.fileno())
        self._journal.state = self._state
        self._journal.write()

    def finish(self, sources: Path) -> None:
        """Make of the files what `AlignedFaces` opens."""
        self._head()
        self._names.seek(0)
        listed = [json.loads(line) for line in self._names]
        partial = sources.with_suffix(".partial")
        partial.write_text(json.dumps(listed))
        partial.replace(sources)
        self._state = replace(self._state, finished=True)
        self.commit()

    def _head(self) -> None:
        """NumPy's header. It has room for any number of rows, so that it can be written before that is known."""
        head = io.BytesIO()
        shape = (self._state.faces, *_CROP_SHAPE)
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert len(head.getvalue()) == _HEAD_BYTES
        self._crops.seek(0)
        self._crops.write(head.getvalue())


def _how(source: Source, alignment: Alignment, exclude: frozenset[str]) -> dict[str, Any]:
    """What a folder must have been prepared from and by, for a run to go on with it."""
    return {
        "source": source.name,
        "pictures": len(source),
        "detector": sha256_of_file(alignment.detector) if alignment.detector is not None else None,
        "score_threshold": alignment.score_threshold,
        "excluded_people": hashlib.sha256("\n".join(sorted(exclude)).encode()).hexdigest() if exclude else None,
    }


def _appended(path: Path) -> BinaryIO:
    """A file to read and write that keeps what it has."""
    path.touch()
    return path.open("r+b")


def _blocks(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    while block := list(islice(pictures, _BLOCK)):
        yield block


def _bar(source: Source, state: Prepared) -> dict[str, Any]:
    return {"initial": state.read, "total": len(source) or None, "unit": "picture", "desc": "aligning"}
