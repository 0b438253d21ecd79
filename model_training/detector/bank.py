"""Stored canvases: drawing one costs as much as a training step on it, so each is drawn once and seen often."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model_training.data.faces import DataError
from model_training.detector.canvases import ANSWER_COLUMNS, MAX_ANSWERS, MAX_ROWS, Canvas, Image
from model_training.detector.geometry import ROW_COLUMNS, Rows, mirror_rows
from model_training.detector.patience import Painter


class CanvasBank:
    """Canvases and their labels in three memory-mapped arrays.

    Attributes:
        canvases: (n, side, side, 3) uint8, BGR.
        rows: (n, 24, 15) float32, see `geometry.ROW_COLUMNS`.
        answers: (n, 128, 16) float32, see `canvases.ANSWER_COLUMNS`.
        patient: the labels hold for exactly these canvases, so none is ever mirrored.

    Raises:
        DataError: the folder is missing or was not drawn to the end.
    """

    def __init__(self, folder: Path) -> None:
        try:
            state = json.loads((folder / "bank.json").read_text())
            drawn, self.patient = int(state["drawn"]), bool(state["patient"])
            self.canvases: Image = np.load(folder / "canvases.npy", mmap_mode="r", allow_pickle=False)
            self.rows: Rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
            self.answers: Rows = np.load(folder / "answers.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} holds no canvases") from error
        if drawn != len(self.canvases):
            raise DataError(f"{folder}: {drawn} of {len(self.canvases)} canvases are drawn; draw again to go on")

    def __len__(self) -> int:
        return len(self.canvases)

    @property
    def side_px(self) -> int:
        """Side of the square canvases."""
        return int(self.canvases.shape[1])

    def taken(self, chosen: slice | Sequence[int]) -> Canvas:
        """Copies of some canvases."""
        return Canvas(*(np.array(stored[chosen]) for stored in (self.canvases, self.rows, self.answers)))

    def batch(self, index: int, size: int, seed: int) -> Canvas:
        """Batch number `index` of an endless shuffled sequence; it depends on the arguments alone.

        Every epoch has another order and, unless the labels are a patient teacher's, mirrors another half.

        Raises:
            DataError: the bank holds fewer canvases than a batch.
        """
        per_epoch = len(self) // size
        if not per_epoch:
            raise DataError(f"a bank of {len(self)} canvases cannot fill a batch of {size}")
        epoch, position = divmod(index, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        # Sorted reads keep a memory map sequential; the order within a batch means nothing.
        chosen = np.sort(order[position * size : (position + 1) * size])
        batch = self.taken(chosen.tolist())
        if self.patient:
            return batch
        mirrored = np.random.default_rng([seed, epoch, position]).random(size) < 0.5
        batch.pixels[mirrored] = batch.pixels[mirrored][:, :, ::-1]
        batch.rows[mirrored] = mirror_rows(batch.rows[mirrored], self.side_px)
        return batch


def draw_canvases(painter: Painter, out: Path, *, count: int, seed: int, threads: int = 2) -> None:
    """Draw canvases into a folder; canvas `i` depends on `seed` and `i` alone, so an interrupted run goes on.

    Raises:
        DataError: the folder holds canvases of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    state_path = out / "bank.json"
    recipe = {"seed": seed, "count": count, "side_px": painter.side_px, "patient": painter.patient}
    start = 0
    if state_path.exists():
        state = json.loads(state_path.read_text())
        if {key: state.get(key) for key in recipe} != recipe:
            raise DataError(f"{out} holds canvases of another recipe")
        start = int(state["drawn"])
    if start == count:
        return
    mode, side = ("r+" if start else "w+"), painter.side_px
    canvases = np.lib.format.open_memmap(out / "canvases.npy", mode, np.uint8, (count, side, side, 3))
    rows = np.lib.format.open_memmap(out / "rows.npy", mode, np.float32, (count, MAX_ROWS, ROW_COLUMNS))
    answers = np.lib.format.open_memmap(out / "answers.npy", mode, np.float32, (count, MAX_ANSWERS, ANSWER_COLUMNS))

    def draw(index: int) -> None:
        canvases[index], rows[index], answers[index] = painter.draw(np.random.default_rng([seed, index]))

    block = 256
    with tqdm(total=count, initial=start, unit="canvas", desc="drawing") as bar, ThreadPoolExecutor(threads) as pool:
        for first in range(start, count, block):
            last = min(first + block, count)
            for _ in pool.map(draw, range(first, last)):
                bar.update()
            for stored in (canvases, rows, answers):
                stored.flush()
            state_path.write_text(json.dumps({**recipe, "drawn": last}))


def prefetched(bank: CanvasBank, first: int, last: int, size: int, seed: int) -> Iterator[Canvas]:
    """Batches `first` to `last` (exclusive) of a bank, each read while the one before it trains."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(bank.batch, first, size, seed) if first < last else None
        for index in range(first, last):
            assert upcoming is not None
            current = upcoming.result()
            upcoming = pool.submit(bank.batch, index + 1, size, seed) if index + 1 < last else None
            yield current
