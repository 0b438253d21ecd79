"""What a run reports as it goes: a line of `log.csv` for each report, and the same figures for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

TABLE, EVENTS = "log.csv", "tensorboard"
_STEP = "step"


class RunLog:
    """The reports of one run, by the one of its processes that leads.

    A run that goes on from a checkpoint repeats the steps after it: the first report after a start replaces what the
    run had said of that step and of later ones.

    Args:
        folder: of the run; the table lies in it, TensorBoard's files in its folder `tensorboard`.
    """

    def __init__(self, folder: Path) -> None:
        self._table = folder / TABLE
        self._events = folder / EVENTS
        self._writer: SummaryWriter | None = None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Report the figures of a step: always the same ones, at rising steps."""
        if self._writer is None:
            self._forget_from(step)
            self._writer = SummaryWriter(str(self._events), purge_step=step)
        fresh = not self._table.exists()
        with self._table.open("a", newline="") as stream:
            table = csv.DictWriter(stream, [_STEP, *figures])
            if fresh:
                table.writeheader()
            table.writerow({_STEP: step, **{name: f"{value:.6g}" for name, value in figures.items()}})
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _forget_from(self, step: int) -> None:
        """Leave the table's rows before a step."""
        if not self._table.exists():
            return
        with self._table.open(newline="") as stream:
            rows = csv.DictReader(stream)
            columns = list(rows.fieldnames or [])
            kept = [row for row in rows if int(row[_STEP]) < step]
        partial = self._table.with_suffix(".partial")
        with partial.open("w", newline="") as stream:
            table = csv.DictWriter(stream, columns)
            table.writeheader()
            table.writerows(kept)
        partial.replace(self._table)
