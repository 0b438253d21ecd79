"""Aligned faces on disk, and the bank of teacher-labelled views that a student trains on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model_training.teacher import Teacher
from model_training.views import augmented_view, clean_view, mixed_view
from service.contract import CROP_SIDE_PX, ContractError, align
from service.vision.detection import YuNetDetector

# Class of a view whose person is not known, or that shows two.
NOBODY = -1


class DataError(ValueError):
    """A data folder is not what it should be."""


@dataclass(frozen=True)
class AlignedFaces:
    """Aligned crops and where each came from.

    Attributes:
        crops: (n, 112, 112, 3) uint8, BGR, memory-mapped.
        sources: the picture of each crop, relative to the folder it was read from.
    """

    crops: NDArray[np.uint8]
    sources: list[str]

    @classmethod
    def load(cls, folder: Path) -> AlignedFaces:
        """Open a folder that `prepare_faces` wrote.

        Raises:
            DataError: it is incomplete.
        """
        try:
            sources = json.loads((folder / "sources.json").read_text())
            crops = np.load(folder / "crops.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} holds no prepared faces") from error
        if len(sources) != len(crops):
            raise DataError(f"{folder} has {len(crops)} crops but {len(sources)} sources")
        return cls(crops, sources)

    def people(self) -> list[str]:
        """The sub-folder that each crop's picture lay in, by which data sets name people."""
        return [Path(source).parent.as_posix() for source in self.sources]


def prepare_faces(pictures: list[Path], root: Path, detector: YuNetDetector, out: Path) -> int:
    """Detect the main face of each picture, align it by the service's contract, and store the crops.

    Pictures without a face are left out. Returns the number of faces stored.
    """
    out.mkdir(parents=True, exist_ok=True)

    def crop_of(path: Path) -> NDArray[np.uint8] | None:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            return None
        image = np.asarray(image, dtype=np.uint8)
        faces = detector.detect(image)
        if not faces:
            return None
        main = max(faces, key=lambda face: face.box.width * face.box.height)
        try:
            return align(image, main.landmarks)
        except ContractError:
            return None

    with ThreadPoolExecutor(2) as pool:
        found = list(tqdm(pool.map(crop_of, pictures), total=len(pictures), unit="picture", desc="aligning"))
    crops = [crop for crop in found if crop is not None]
    sources = [str(path.relative_to(root)) for path, crop in zip(pictures, found, strict=True) if crop is not None]
    if not crops:
        raise DataError(f"no face in any of {len(pictures)} pictures")
    np.save(out / "crops.npy", np.stack(crops))
    (out / "sources.json").write_text(json.dumps(sources))
    return len(crops)


class Batch(NamedTuple):
    """Rows of a bank: `views` (n, 112, 112, 3) uint8, `labels` (n, d) float32, `classes` (n,) int64 or `NOBODY`."""

    views: NDArray[np.uint8]
    labels: NDArray[np.float32]
    classes: NDArray[np.int64]


class ViewBank:
    """Views, the teacher's embeddings of them and, as far as known, whom they show, in memory-mapped arrays.

    Labelling costs more than a training step, so each view is labelled once and seen in several epochs.

    Attributes:
        folder: where they lie.
        views: (n, 112, 112, 3) uint8, BGR.
        labels: (n, d) float32, the teacher's raw embeddings.
        classes: (n,) int64, numbers of persons, `NOBODY` where none is known.
        people: persons in all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        done = json.loads((folder / "bank.json").read_text())
        self.views: NDArray[np.uint8] = np.load(folder / "views.npy", mmap_mode="r", allow_pickle=False)
        self.labels: NDArray[np.float32] = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
        if done["labelled"] != len(self.views):
            raise DataError(
                f"{folder}: {done['labelled']} of {len(self.views)} views are labelled; run the labelling again"
            )
        self.people = int(done.get("people", 0))
        self.classes: NDArray[np.int64] = np.full(len(self.views), NOBODY)
        if self.people:
            self.classes = np.load(folder / "classes.npy", mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.views)

    def class_means(self) -> NDArray[np.float32]:
        """(people, d) float32 of unit length: each person's mean direction by the teacher.

        What stands in for the hyperplanes of a teacher whose classifier is not known.

        Raises:
            DataError: a person has no view, or no person is known.
        """
        known = np.flatnonzero(self.classes != NOBODY)
        directions = np.asarray(self.labels[known])
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        sums = np.zeros((self.people, self.labels.shape[1]), dtype=np.float32)
        np.add.at(sums, self.classes[known], directions)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        if not self.people or not lengths.all():
            raise DataError("the bank does not say whom its views show")
        return np.asarray(sums / lengths, dtype=np.float32)

    def batches(
        self, size: int, epoch: int, seed: int, rows: int, skip: int = 0, *, rank: int = 0, peers: int = 1
    ) -> Iterator[Batch]:
        """Shuffled batches of one epoch; the order depends on `seed` and `epoch` alone, so a resumed run repeats it.

        Args:
            size: views a batch; an incomplete last batch is dropped.
            rows: only the first so many views take part.
            skip: batches to leave out at the start.
            rank, peers: of this process; each gets its share of every batch.
        """
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        for start in range(skip * size, rows - size + 1, size):
            # Sorted reads keep a memory map sequential; the order within a batch means nothing.
            chosen = np.sort(order[start : start + size])
            yield self.at(chosen[rank::peers])

    def at(self, rows: NDArray[np.int64] | slice) -> Batch:
        """Some rows, read from disk."""
        return Batch(np.array(self.views[rows]), np.array(self.labels[rows]), np.array(self.classes[rows]))


def label_views(
    faces: list[AlignedFaces],
    teacher: Teacher,
    out: Path,
    *,
    views_per_face: int,
    seed: int,
    batch: int = 64,
    identities: Sequence[bool] | None = None,
) -> None:
    """Draw views of every face (one clean, the rest augmented, a third of those mixed) and label each by the teacher.

    An interrupted run goes on where it stopped: view `i` depends on `seed` and `i` alone.

    Args:
        identities: for each of `faces`, whether its pictures lie in a sub-folder for each person.
    """
    out.mkdir(parents=True, exist_ok=True)
    people = _people(faces, identities or [False] * len(faces))
    crops = np.concatenate([np.asarray(part.crops) for part in faces])
    total = len(crops) * views_per_face
    state_path = out / "bank.json"
    recipe = {
        "seed": seed,
        "views_per_face": views_per_face,
        "faces": len(crops),
        "teacher": teacher.name,
        "people": int(people.max(initial=NOBODY)) + 1,
    }
    start = 0
    if state_path.exists():
        state = json.loads(state_path.read_text())
        if {key: state.get(key) for key in recipe} != recipe:
            raise DataError(f"{out} holds a bank of another recipe")
        start = int(state["labelled"])
    mode = "r+" if start else "w+"
    views = np.lib.format.open_memmap(out / "views.npy", mode, np.uint8, (total, CROP_SIDE_PX, CROP_SIDE_PX, 3))
    labels = np.lib.format.open_memmap(out / "labels.npy", mode, np.float32, (total, teacher.dimension))

    classes = np.lib.format.open_memmap(out / "classes.npy", mode, np.int64, (total,))

    def draw(rows: range) -> tuple[NDArray[np.uint8], list[int]]:
        drawn = [_draw_view(crops, row, views_per_face, seed) for row in rows]
        shown = [
            NOBODY if mixed else int(people[row // views_per_face]) for row, (_, mixed) in zip(rows, drawn, strict=True)
        ]
        return np.stack([view for view, _ in drawn]), shown

    blocks = [range(first, min(first + batch, total)) for first in range(start, total, batch)]
    with tqdm(total=total, initial=start, unit="view", desc="labelling") as bar, ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(draw, blocks[0]) if blocks else None
        for index, rows in enumerate(blocks):
            assert upcoming is not None
            drawn, shown = upcoming.result()
            upcoming = ahead.submit(draw, blocks[index + 1]) if index + 1 < len(blocks) else None
            views[rows.start : rows.stop] = drawn
            labels[rows.start : rows.stop] = teacher.embed(drawn)
            classes[rows.start : rows.stop] = shown
            bar.update(len(rows))
            if rows.stop == total or index % 50 == 49:
                views.flush()
                labels.flush()
                classes.flush()
                state_path.write_text(json.dumps({**recipe, "labelled": rows.stop}))


def _people(faces: list[AlignedFaces], identities: Sequence[bool]) -> NDArray[np.int64]:
    """Number of the person on each crop of all folders; the same name in two folders is two people."""
    numbers: dict[tuple[int, str], int] = {}
    found: list[int] = []
    for place, (part, named) in enumerate(zip(faces, identities, strict=True)):
        for name in part.people():
            found.append(numbers.setdefault((place, name), len(numbers)) if named else NOBODY)
    return np.array(found, dtype=np.int64)


def _draw_view(crops: NDArray[np.uint8], row: int, views_per_face: int, seed: int) -> tuple[NDArray[np.uint8], bool]:
    """A view, and whether another face is mixed into it."""
    rng = np.random.default_rng([seed, row])
    crop = crops[row // views_per_face]
    if row % views_per_face == 0:
        return clean_view(crop), False
    view = augmented_view(crop, rng)
    if rng.random() >= 1 / 3:
        return view, False
    other = augmented_view(crops[rng.integers(len(crops))], rng)
    return mixed_view(view, other, rng), True
