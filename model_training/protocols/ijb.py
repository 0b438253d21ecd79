"""IJB-B and IJB-C as NIST hands them out, and as InsightFace repacks them with landmarks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.templates import Numbers, TemplateFace, TemplateFaces

# What the two galleries are called.
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
# Column of the picture or video, by preference; where none is there, each picture is a medium.
_MEDIA_COLUMNS = ("SIGHTING_ID", "MEDIA_ID")
_BOX_COLUMNS = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")


@dataclass(frozen=True)
class Ijb:
    """One benchmark.

    Attributes:
        listed: faces of all templates.
        first, second, same: (m,) 1:1 comparisons; none where the files list none.
        galleries: person by template, for each gallery.
        probes: person by template.
    """

    listed: TemplateFaces
    first: Numbers
    second: Numbers
    same: NDArray[np.bool_]
    galleries: dict[str, dict[int, int]] = field(default_factory=dict)
    probes: dict[int, int] = field(default_factory=dict)


def read_insightface(folder: Path, name: str) -> Ijb:
    """`meta/ijbc_face_tid_mid.txt`, `_name_5pts_score.txt`, `_template_pair_label.txt`, pictures in `loose_crop`.

    Where the 1:N files of NIST lie in `meta` as well, they say who is in the galleries.

    Args:
        folder: with `meta` and `loose_crop`.
        name: `ijbb` or `ijbc`.

    Raises:
        ProtocolError: a file is missing or has another form.
    """
    meta = folder / "meta"
    belongs = _fields(meta / f"{name}_face_tid_mid.txt", 3)
    points = _fields(meta / f"{name}_name_5pts_score.txt", 12)
    if [row[0] for row in belongs] != [row[0] for row in points]:
        raise ProtocolError(f"{meta} lists other pictures with landmarks than with templates")
    try:
        faces = _existing([_with_landmarks(folder / "loose_crop", row) for row in points])
        template, media = (np.array([int(row[at]) for row in belongs], dtype=np.int64) for at in (1, 2))
        pairs = np.array(
            [[int(part) for part in row] for row in _fields(meta / f"{name}_template_pair_label.txt", 3)],
            dtype=np.int64,
        )
    except ProtocolError:
        raise
    except ValueError as error:
        raise ProtocolError(f"{meta} has something else where numbers should be") from error
    galleries = {each: meta / f"{name}_1N_gallery_{each}.csv" for each in GALLERIES[name]}
    searched = all(path.is_file() for path in galleries.values())
    return Ijb(
        listed=TemplateFaces(faces, template, media),
        first=pairs[:, 0],
        second=pairs[:, 1],
        same=pairs[:, 2] == 1,
        galleries={each: _persons(_rows(path)) for each, path in galleries.items()} if searched else {},
        probes=_persons(_rows(meta / f"{name}_1N_probe_mixed.csv")) if searched else {},
    )


def _existing(faces: list[TemplateFace]) -> list[TemplateFace]:
    absent = next((face.path for face in faces if not face.path.is_file()), None)
    if absent is not None:
        raise ProtocolError(f"no picture at {absent}")
    return faces


def _with_landmarks(folder: Path, row: Sequence[str]) -> TemplateFace:
    values = [float(part) for part in row[1:11]]
    return TemplateFace(folder / row[0], landmarks=tuple(zip(values[::2], values[1::2], strict=True)))


def read_nist(folder: Path, name: str) -> Ijb:
    """`protocols/ijbc_1N_gallery_G1.csv`, `_G2.csv`, `_1N_probe_mixed.csv`, `ijbc_11_G1_G2_matches.csv`.

    Comparisons are of one person where both templates have the same SUBJECT_ID.

    Args:
        folder: with `protocols` (or `protocol`) and, where the files name pictures from there, `images`.
        name: `ijbb` or `ijbc`.

    Raises:
        ProtocolError: a file is missing or has another form.
    """
    protocol = next((folder / each for each in ("protocols", "protocol") if (folder / each).is_dir()), folder)
    images = folder / "images" if (folder / "images").is_dir() else folder
    both = GALLERIES[name]
    files = {each: _rows(protocol / f"{name}_1N_gallery_{each}.csv") for each in both}
    probe_rows = _rows(protocol / f"{name}_1N_probe_mixed.csv")
    rows = [row for each in (*files.values(), probe_rows) for row in each]
    person = _persons(rows)
    matches = protocol / f"{name}_11_{both[0]}_{both[1]}_matches.csv"
    try:
        pairs = np.array([[int(part) for part in row] for row in _fields(matches, 2, separator=",")], dtype=np.int64)
        same = np.array([person[one] == person[other] for one, other in pairs.tolist()])
    except (KeyError, ValueError) as error:
        raise ProtocolError(f"{matches} compares something else than these templates: {error}") from error
    media_numbers: dict[str, int] = {}
    media = [media_numbers.setdefault(_medium(row), len(media_numbers)) for row in rows]
    return Ijb(
        listed=TemplateFaces(
            _existing([_with_box(images, row) for row in rows]),
            np.array([int(row["TEMPLATE_ID"]) for row in rows], dtype=np.int64),
            np.array(media, dtype=np.int64),
        ),
        first=pairs[:, 0],
        second=pairs[:, 1],
        same=same,
        galleries={each: _persons(found) for each, found in files.items()},
        probes=_persons(probe_rows),
    )


def _medium(row: dict[str, str]) -> str:
    return next((f"{column} {row[column]}" for column in _MEDIA_COLUMNS if row.get(column)), row["FILENAME"])


def _with_box(images: Path, row: dict[str, str]) -> TemplateFace:
    path = images / row["FILENAME"]
    if not path.resolve().is_relative_to(images.resolve()):
        raise ProtocolError(f"{row['FILENAME']} is not a picture of this data set")
    if not all(row.get(column) for column in _BOX_COLUMNS):
        return TemplateFace(path)
    try:
        x, y, width, height = (float(row[column]) for column in _BOX_COLUMNS)
    except ValueError as error:
        raise ProtocolError(f"{row['FILENAME']} has a box of something else than numbers") from error
    return TemplateFace(path, box=(x, y, width, height))


def _persons(rows: Sequence[dict[str, str]]) -> dict[int, int]:
    """Person by template."""
    try:
        return {int(row["TEMPLATE_ID"]): int(row["SUBJECT_ID"]) for row in rows}
    except (TypeError, ValueError) as error:
        raise ProtocolError("a template or person has no number") from error


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProtocolError(f"{path} cannot be read: {error}") from error
    lacking = {"TEMPLATE_ID", "SUBJECT_ID", "FILENAME"} - set(reader.fieldnames or ())
    if lacking or not rows:
        raise ProtocolError(f"{path} has no rows with {', '.join(sorted(lacking)) or 'templates'}")
    return rows


def _fields(path: Path, count: int, separator: str | None = None) -> list[list[str]]:
    """Rows of `count` fields."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path} cannot be read: {error}") from error
    rows = [line.split(separator) for line in lines if line.strip()]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != count), None)
    if wrong is not None or not rows:
        raise ProtocolError(f"{path} has no {count} fields in line {wrong or 1}")
    return rows
