"""The bank of teacher-labelled views that a student trains on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model_training.data.faces import NOBODY, AlignedFaces, DataError, person_numbers
from model_training.data.views import augmented_view, clean_view, mixed_view
from model_training.teachers.networks import Teacher
from service.contract import CROP_SIDE_PX


class StoredViews(NamedTuple):
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
        views_per_face: rows that follow each other and show one face, the first of them clean.
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
        self.views_per_face = int(done.get("views_per_face", 1))
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
        return class_means(np.asarray(self.labels), np.asarray(self.classes), self.people)

    def batches(
        self,
        size: int,
        epoch: int,
        seed: int,
        rows: NDArray[np.int64],
        skip: int = 0,
        *,
        rank: int = 0,
        peers: int = 1,
    ) -> Iterator[StoredViews]:
        """Shuffled batches of one epoch; the order depends on `seed` and `epoch` alone, so a resumed run repeats it.

        Args:
            size: views a batch; an incomplete last batch is dropped.
            rows: those that take part.
            skip: batches to leave out at the start.
            rank, peers: of this process; each gets its share of every batch.
        """
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        for start in range(skip * size, len(order) - size + 1, size):
            # Sorted reads keep a memory map sequential; the order within a batch means nothing.
            chosen = np.sort(order[start : start + size])
            yield self.at(chosen[rank::peers])

    def at(self, rows: NDArray[np.int64] | slice) -> StoredViews:
        """Some rows, read from disk."""
        return StoredViews(np.array(self.views[rows]), np.array(self.labels[rows]), np.array(self.classes[rows]))


def class_means(labels: NDArray[np.float32], classes: NDArray[np.int64], people: int) -> NDArray[np.float32]:
    """Each person's mean direction.

    Args:
        labels: (n, d) float32, raw embeddings.
        classes: (n,) int64, numbers of persons or `NOBODY`.
        people: persons in all.

    Returns:
        (people, d) float32 of unit length.

    Raises:
        DataError: a person has no view, or no person is known.
    """
    known = np.flatnonzero(classes != NOBODY)
    directions = labels[known]
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    sums = np.zeros((people, labels.shape[1]), dtype=np.float32)
    np.add.at(sums, classes[known], directions)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    if not people or not lengths.all():
        raise DataError("the views do not say whom they show, or not all persons have one")
    return np.asarray(sums / lengths, dtype=np.float32)


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
    people = person_numbers(faces, identities or [False] * len(faces))
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
