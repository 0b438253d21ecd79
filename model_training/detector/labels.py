"""Boxes and landmarks that the teacher gives for training pictures, stored as one JSON file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model_training.data.faces import DataError
from service.vision.detection import YuNetDetector

# One face is a row: left, top, right, bottom, then five landmarks as x, y pairs, then the teacher's score.
FACE_COLUMNS = 15

# At 0.3 the teacher also reports what it half believes; such a region is neither a face nor background in training.
LABEL_SCORE_THRESHOLD = 0.3
# A face that only the enlarged picture shows counts from here on; the enlarged pass also halves small faces' error.
_SURE_ON_PICTURE = 0.6
_MATCH_IOU = 0.3

# Name of the collection whose pictures are known to hold no face; they are cut up for background.
FACELESS = "faceless"

Faces = NDArray[np.float32]


@dataclass(frozen=True)
class LabelledPicture:
    """A picture on disk and what the teacher sees in it.

    Attributes:
        path: the file.
        source: name of the collection it comes from.
        faces: (n, 15) float32 rows in the order that `FACE_COLUMNS` describes, pixels of the picture, best first.
        held_out: reserved for choosing a checkpoint, never trained on.
    """

    path: Path
    source: str
    faces: Faces
    held_out: bool


def pictures_in_pairs(pairs_file: Path) -> set[str]:
    """Pictures that a pairs file in LFW's format names, as `Name/Name_0001.jpg`.

    A detector learns no identity, so unlike the embedding network it may train on other pictures of the same people.
    """
    rows = [line.split() for line in pairs_file.read_text().splitlines()[1:] if line.strip()]
    named: set[str] = set()
    for row in rows:
        people = [(row[0], row[1]), (row[0], row[2])] if len(row) == 3 else [(row[0], row[1]), (row[2], row[3])]
        named.update(f"{name}/{name}_{int(number):04d}.jpg" for name, number in people)
    return named


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair of boxes.

    Args:
        first: (n, 4) left, top, right, bottom.
        second: (m, 4) likewise.

    Returns:
        (n, m) float32 in [0, 1].
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:4] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-6), dtype=np.float32)


def detected_faces(detector: YuNetDetector, image: NDArray[np.uint8]) -> Faces:
    """What a detector finds, as rows in the order that `FACE_COLUMNS` describes: (n, 15) float32, best first."""
    rows = [
        [f.box.x, f.box.y, f.box.x + f.box.width, f.box.y + f.box.height, *f.landmarks.reshape(-1), f.score]
        for f in detector.detect(image)
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, FACE_COLUMNS)


def teacher_faces(teacher: YuNetDetector, image: NDArray[np.uint8]) -> Faces:
    """Label a picture at its own size and twice enlarged, where the teacher sees small faces that it otherwise misses.

    A face keeps the geometry that the picture itself gives where the teacher is sure of it there, since that is what
    the student is measured against; its score is the better of the two.

    Returns:
        (n, 15) float32, pixels of `image`, best first.
    """
    plain = detected_faces(teacher, image)
    enlarged = detected_faces(teacher, np.asarray(cv2.resize(image, None, fx=2, fy=2), dtype=np.uint8))
    # The centre of pixel p lies at 2p + 0.5 after doubling.
    enlarged[:, :14] = (enlarged[:, :14] - 0.5) / 2
    if not len(plain) or not len(enlarged):
        return plain if len(plain) else enlarged
    overlap = box_iou(plain, enlarged)
    merged = []
    for index, face in enumerate(plain):
        mate = int(overlap[index].argmax())
        if overlap[index, mate] < _MATCH_IOU:
            merged.append(face)
            continue
        geometry = face if face[14] >= max(_SURE_ON_PICTURE, enlarged[mate, 14] - 0.2) else enlarged[mate]
        merged.append(np.append(geometry[:14], max(face[14], enlarged[mate, 14])))
    merged.extend(face for face, best in zip(enlarged, overlap.max(axis=0), strict=True) if best < _MATCH_IOU)
    faces = np.array(merged, dtype=np.float32)
    return faces[np.argsort(-faces[:, 14], kind="stable")]


def is_held_out(name: str, share: float) -> bool:
    """Whether a picture is reserved for choosing a checkpoint; depends on its name alone, so it never changes sides."""
    return zlib.crc32(name.encode()) % 10_000 < share * 10_000


def label_pictures(
    collections: Mapping[str, Sequence[Path]],
    teacher: YuNetDetector,
    out: Path,
    *,
    faceless: Sequence[Path] = (),
    held_out: float = 0.03,
    threads: int = 2,
) -> int:
    """Label pictures by the teacher and write them to one file.

    Pictures in which the teacher sees nothing even at its low threshold are left out: they may well hold a face.

    Args:
        collections: files to label, by the name of their collection.
        teacher: at the threshold `LABEL_SCORE_THRESHOLD`.
        out: JSON file to write.
        faceless: photos known to hold no face; stored unlabelled as the collection `FACELESS`.
        held_out: share reserved for choosing a checkpoint.
        threads: pictures labelled at a time.

    Returns:
        Number of pictures stored.

    Raises:
        DataError: no picture shows a face.
    """
    sources = [(source, path) for source, pictures in collections.items() for path in pictures]

    def faces_of(path: Path) -> Faces | None:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        return None if image is None else teacher_faces(teacher, np.asarray(image, dtype=np.uint8))

    with ThreadPoolExecutor(threads) as pool:
        answers = pool.map(faces_of, [path for _, path in sources])
        found = list(tqdm(answers, total=len(sources), unit="picture", desc="labelling"))
    records = [
        {
            "path": str(path),
            "source": source,
            "faces": [[round(float(value), 3) for value in face] for face in faces],
            "held_out": is_held_out(f"{path.parent.name}/{path.name}", held_out),
        }
        for (source, path), faces in zip(sources, found, strict=True)
        if faces is not None and len(faces)
    ]
    if not records:
        raise DataError(f"the teacher sees no face in any of {len(sources)} pictures")
    records += [{"path": str(path), "source": FACELESS, "faces": [], "held_out": False} for path in faceless]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(records))
    partial.replace(out)
    return len(records)


def load_labels(file: Path) -> list[LabelledPicture]:
    """Read what `label_pictures` wrote.

    Raises:
        DataError: the file is missing or not such a file.
    """
    try:
        records = json.loads(file.read_text())
        return [
            LabelledPicture(
                path=Path(record["path"]),
                source=str(record["source"]),
                faces=np.array(record["faces"], dtype=np.float32).reshape(-1, FACE_COLUMNS),
                held_out=bool(record["held_out"]),
            )
            for record in records
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds no labels") from error
