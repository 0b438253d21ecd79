"""The detector's training loop: one process, bfloat16 autocast, exact resume. It never sees a benchmark."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model_training.detector.assignment import assign
from model_training.detector.bank import CanvasBank, prefetched
from model_training.detector.canvases import Canvas
from model_training.detector.losses import DetectorObjective
from model_training.detector.network import FaceNetwork
from model_training.detector.optimiser import OrthogonalMomentum
from model_training.detector.recipe import DetectorRecipe
from model_training.detector.restart import earlier_training, load_exported
from model_training.training.trainer import CheckpointError

TERMS = ("score", "box", "landmark", "landmark_error")

_LOG_COLUMNS = ["step", "minutes", "learning_rate", *TERMS, *(f"held_out_{term}" for term in TERMS)]
_CLIP_NORM = 10.0
# Enough for the statistics of every norm of an exported detector.
_SETTLING_CANVASES = 256


def rate_factor(step: int, recipe: DetectorRecipe) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def to_tensors(batch: Canvas) -> tuple[Tensor, ...]:
    """A batch of canvases as `DetectorObjective` takes it."""
    pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float()
    targets = assign(torch.from_numpy(batch.rows), torch.from_numpy(batch.answers), *pixels.shape[2:])
    return pixels, targets.weight, targets.negative, targets.boxes, targets.landmarks


class DetectorTrainer:
    """Trains a detector from two banks of canvases.

    Args:
        recipe: how.
        small: canvases of most steps.
        large: canvases of every `recipe.large_every`-th step.
        held_out: canvases of pictures that never train, of the small side; only reported.
        folder: where the checkpoint and `log.csv` go.
        compiled: run through torch.compile; measured on CPU it takes a minute to start and is no faster in bfloat16.
    """

    def __init__(
        self,
        recipe: DetectorRecipe,
        small: CanvasBank,
        large: CanvasBank,
        held_out: CanvasBank,
        folder: Path,
        *,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self._recipe = recipe
        self._small, self._large, self._held_out = small, large, held_out
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.network = FaceNetwork(recipe.width).to(memory_format=torch.channels_last)
        self._objectives = {
            side: DetectorObjective(self.network, side, recipe.landmark_weight, recipe.negative_weight)
            for side in {small.side_px, large.side_px, held_out.side_px}
        }
        self._run = {
            side: torch.compile(objective, dynamic=False) if compiled else objective
            for side, objective in self._objectives.items()
        }
        mixing = [p for p in self.network.parameters() if p.ndim == 4 and p.shape[2:] == (1, 1)]
        chosen = {id(p) for p in mixing}
        others = [p for p in self.network.parameters() if id(p) not in chosen]
        # Each group's own peak; the schedule scales both alike.
        self._optimizers: list[torch.optim.Optimizer] = [
            OrthogonalMomentum(mixing, lr=recipe.mixing_rate, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(others, lr=recipe.learning_rate, weight_decay=0.0),
        ]
        self._peaks = (recipe.mixing_rate, recipe.learning_rate)
        self.step = 0
        self.seconds = 0.0
        self._earlier = {"steps": 0.0, "seconds": 0.0}

    @property
    def checkpoint_path(self) -> Path:
        """The one checkpoint that a run keeps."""
        return self._folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Load the checkpoint if there is one.

        Raises:
            CheckpointError: it was written under another recipe.
        """
        if not self.checkpoint_path.exists():
            return False
        state = torch.load(self.checkpoint_path, weights_only=True)
        if state["recipe"] != self._recipe.model_dump_json():
            raise CheckpointError(f"{self.checkpoint_path} belongs to another recipe")
        self.network.load_state_dict(state["network"])
        for optimizer, stored in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._earlier = state["earlier"]
        return True

    def start_from(self, checkpoint: Path) -> None:
        """Take the weights, not the optimiser, of an earlier stage: another run's checkpoint, or an exported detector.

        Raises:
            RestartError: an exported file does not hold this network's layers.
        """
        if checkpoint.suffix == ".onnx":
            first = self._small.batch(0, min(_SETTLING_CANVASES, len(self._small)), self._recipe.seed)
            load_exported(self.network, checkpoint, torch.from_numpy(first.pixels).permute(0, 3, 1, 2).float())
            self._earlier = earlier_training(checkpoint)
            return
        state = torch.load(checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._earlier = {
            "steps": float(state["step"]) + state["earlier"]["steps"],
            "seconds": float(state["seconds"]) + state["earlier"]["seconds"],
        }

    def train(self, until: int | None = None) -> None:
        """Run to the end of the recipe, or to step `until`.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        end = min(self._recipe.steps, until if until is not None else self._recipe.steps)
        running = np.zeros(len(TERMS))
        self.network.train()
        since, started = 0, time.monotonic()
        with tqdm(total=self._recipe.steps, initial=self.step, unit="step", desc=self._recipe.name) as bar:
            for batch in self._batches(end):
                terms = self._train_step(batch)
                self.step += 1
                since += 1
                running += (terms - running) / min(since, 50)
                bar.update()
                bar.set_postfix({name: f"{v:.4f}" for name, v in zip(TERMS, running, strict=True)}, refresh=False)
                if self.step % self._recipe.checkpoint_every == 0 or self.step == end:
                    self.seconds += time.monotonic() - started
                    self._log(running)
                    self._save()
                    started = time.monotonic()

    def held_out_terms(self) -> NDArray[np.float64]:
        """Mean of the loss terms, in the order of `TERMS`, on canvases of pictures that never train."""
        size = min(self._recipe.small.batch, len(self._held_out))
        objective = self._objectives[self._held_out.side_px]
        sums = np.zeros(len(TERMS))
        self.network.eval()
        with torch.no_grad(), self._autocast():
            batches = len(self._held_out) // size
            for index in range(batches):
                batch = self._held_out.taken(slice(index * size, (index + 1) * size))
                sums += objective(*to_tensors(batch)).double().numpy()
        self.network.train()
        return sums / batches

    def _batches(self, end: int) -> Iterator[Canvas]:
        """Batches from the current step on; each step's batch depends on the recipe and the step alone."""
        recipe, every = self._recipe, self._recipe.large_every
        large_first, large_last = self.step // every, end // every
        large = prefetched(self._large, large_first, large_last, recipe.large.batch, recipe.seed)
        small = prefetched(self._small, self.step - large_first, end - large_last, recipe.small.batch, recipe.seed)
        for step in range(self.step, end):
            yield next(large if step % every == every - 1 else small)

    def _train_step(self, batch: Canvas) -> NDArray[np.float64]:
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate_factor(self.step, self._recipe)
        with self._autocast():
            terms = self._run[batch.pixels.shape[1]](*to_tensors(batch))
        loss = terms[:3].sum()
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is not finite at step {self.step}")
        for optimizer in self._optimizers:
            optimizer.step()
        return np.asarray(terms.detach().double().numpy())

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._recipe.bf16)

    def _log(self, running: NDArray[np.float64]) -> None:
        path = self._folder / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(_LOG_COLUMNS)
            rate = self._recipe.learning_rate * rate_factor(self.step, self._recipe)
            values = [f"{value:.5f}" for value in (*running, *self.held_out_terms())]
            writer.writerow([self.step, f"{self.seconds / 60:.2f}", f"{rate:.6f}", *values])

    def _save(self) -> None:
        state = {
            "recipe": self._recipe.model_dump_json(),
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "earlier": self._earlier,
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)
