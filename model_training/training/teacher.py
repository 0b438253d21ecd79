"""Training a teacher: a large network and a margin softmax over all people, in one process or several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from model_training.backbones.stages import Backbone
from model_training.config import TeacherRecipe
from model_training.data.people import LabelledFaces, drawn_views, held_out_people, shuffled
from model_training.objectives.partial_softmax import PartialSoftmax
from model_training.training.prefetch import ahead
from model_training.training.processes import Peers
from model_training.training.run_log import RunLog
from model_training.training.trainer import CheckpointError, learning_rate_at
from service.contract import Preprocessing, to_network_input

BACKBONE = "backbone.pt"
# Held-out faces that are compared with each other: two million pairs.
_COMPARED = 2000
_LEAST_MATES = 10


class _Batch(NamedTuple):
    views: NDArray[np.uint8]
    classes: NDArray[np.int64]


class TeacherTrainer:
    """Trains a network to tell the people of a data set apart.

    The network is shared among processes by DDP, the people by `PartialSoftmax`.

    Args:
        network: already initialised; trained in place.
        faces: of whom the recipe's share is held out.
        recipe: how.
        folder: where checkpoints and logs go, and at the end `backbone.pt`: the network's state dict, which for an
            IResNet has the names of public ArcFace checkpoints.
        device: where to train.

    Raises:
        ValueError: a batch cannot be shared evenly, or there are too few faces for one, or people for the processes.
    """

    def __init__(
        self,
        network: Backbone,
        faces: LabelledFaces,
        recipe: TeacherRecipe,
        folder: Path,
        device: torch.device | None = None,
    ) -> None:
        self._recipe, self._faces, self._folder = recipe, faces, folder
        self._device = device or torch.device("cpu")
        self._peers = Peers.here()
        if recipe.batch % self._peers.count:
            raise ValueError(f"a batch of {recipe.batch} does not divide into {self._peers.count} parts")
        held_out = held_out_people(faces.classes, recipe.held_out, recipe.seed)
        self._rows = np.flatnonzero(~held_out)
        self._compared = _comparable(np.flatnonzero(held_out), faces.classes)
        # The classes of those who train, without a gap.
        numbers, self._classes = np.unique(faces.classes[self._rows], return_inverse=True)
        self._people = len(numbers)
        self._steps_per_epoch = len(self._rows) // recipe.batch
        if self._steps_per_epoch < 1:
            raise ValueError(f"{len(self._rows)} faces do not make a batch of {recipe.batch}")
        folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(folder)
        self.network = network.to(self._device, memory_format=torch.channels_last).train()
        self.softmax = PartialSoftmax(
            self._people,
            network.dimension,
            recipe.identity,
            margin=recipe.margin,
            scale=recipe.scale,
            sampled_share=recipe.sampled_share,
            rank=self._peers.rank,
            peers=self._peers.count,
            seed=recipe.seed,
        ).to(self._device)
        run: Any = torch.compile(self.network, dynamic=False) if recipe.compile else self.network
        self._run: nn.Module = DistributedDataParallel(run) if self._peers.count > 1 else run
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
        )
        self._class_optimizer = torch.optim.SparseAdam(self.softmax.parameters(), lr=recipe.learning_rate)
        self.total_steps = self._steps_per_epoch * recipe.epochs
        self.step = 0
        self._running_loss = 0.0
        # Each process draws other classes.
        torch.manual_seed(recipe.seed + 1 + self._peers.rank)

    @property
    def checkpoint_path(self) -> Path:
        """The network, its optimiser and the step; each process's classes lie beside it."""
        return self._folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Load the checkpoint if there is one.

        Raises:
            CheckpointError: it was written under another recipe, of other people, or by another number of processes.
        """
        if not self.checkpoint_path.exists():
            return False
        state = torch.load(self.checkpoint_path, weights_only=True, map_location=self._device)
        if state["made_by"] != self._made_by():
            raise CheckpointError(f"{self.checkpoint_path} belongs to another recipe, other people or more processes")
        step = int(state["step"])
        own = torch.load(self._classes_path(step), weights_only=True, map_location=self._device)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.softmax.load_state_dict(own["softmax"])
        self._class_optimizer.load_state_dict(own["optimizer"])
        torch.set_rng_state(own["rng"].cpu())
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_rng"].cpu(), self._device)
        self.step, self._running_loss = step, float(state["running_loss"])
        return True

    def train(self, until: int | None = None) -> None:
        """Run to the end of the recipe, or to step `until`."""
        end = min(self.total_steps, until if until is not None else self.total_steps)
        with tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            desc=self._recipe.name,
            disable=not self._peers.leads,
        ) as bar:
            for batch in ahead(self._batches(end)):
                loss = self._train_step(batch)
                self.step += 1
                self._running_loss += (loss - self._running_loss) / min(self.step, 50)
                bar.update()
                bar.set_postfix(loss=f"{self._running_loss:.4f}", refresh=False)
                if self.step % self._recipe.checkpoint_every == 0 or self.step == end:
                    self._report()
                    self._save()
        self._log.close()
        if self.step == self.total_steps and self._peers.leads:
            torch.save(self.network.state_dict(), self._folder / BACKBONE)

    def separation(self) -> float | None:
        """How far apart the held-out people's cosines are for one person and for two; see `separation_of`.

        None where fewer than ten pairs of held-out faces show one person.
        """
        if not len(self._compared):
            return None
        self.network.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(self._compared), self._recipe.batch):
                crops = self._faces.crops(self._compared[start : start + self._recipe.batch])
                with self._autocast():
                    parts.append(self.network(self._pixels(crops)).float())
        self.network.train()
        return separation_of(torch.cat(parts), torch.from_numpy(self._faces.classes[self._compared]).to(self._device))

    def _train_step(self, batch: _Batch) -> float:
        for optimizer in (self._optimizer, self._class_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(self.step, self.total_steps, self._recipe)
            optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            embeddings = self._run(self._pixels(batch.views))
        loss = self.softmax(embeddings, torch.from_numpy(batch.classes).to(self._device))
        loss.backward()
        told = float(loss.detach())
        if not math.isfinite(told):
            raise FloatingPointError(f"loss is not finite at step {self.step}")
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimizer.step()
        self._class_optimizer.step()
        return told

    def _batches(self, end: int) -> Iterator[_Batch]:
        recipe = self._recipe
        places = np.arange(len(self._rows))
        for step in range(self.step, end):
            epoch, number = divmod(step, self._steps_per_epoch)
            if step == self.step or number == 0:
                order = shuffled(
                    places, recipe.batch, epoch, recipe.seed, number, rank=self._peers.rank, peers=self._peers.count
                )
            chosen = next(order)
            views = drawn_views(self._faces, self._rows[chosen], recipe.augmented, recipe.seed, epoch)
            yield _Batch(views, self._classes[chosen])

    def _pixels(self, views: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(to_network_input(views, Preprocessing())).to(self._device)
        return pixels.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.bf16)

    def _report(self) -> None:
        if not self._peers.leads:
            return
        rate = learning_rate_at(self.step - 1, self.total_steps, self._recipe)
        figures = {"loss": self._running_loss, "learning_rate": rate}
        separation = self.separation()
        if separation is not None:
            figures["held_out_separation"] = separation
        self._log.write(self.step, figures)

    def _made_by(self) -> dict[str, Any]:
        return {"recipe": self._recipe.model_dump_json(), "people": self._people, "peers": self._peers.count}

    def _classes_path(self, step: int) -> Path:
        return self._folder / f"classes-{self._peers.rank}-{step}.pt"

    def _save(self) -> None:
        """Each process its classes, then one the network: a kill in between leaves the checkpoint before whole."""
        own = {
            "softmax": self.softmax.state_dict(),
            "optimizer": self._class_optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }
        _written(own, self._classes_path(self.step))
        self._peers.wait()
        if self._peers.leads:
            state = {"made_by": self._made_by(), "step": self.step, "running_loss": self._running_loss}
            state |= {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}
            _written(state, self.checkpoint_path)
        self._peers.wait()
        for path in self._folder.glob(f"classes-{self._peers.rank}-*.pt"):
            if path != self._classes_path(self.step):
                path.unlink()


def separation_of(embeddings: Tensor, classes: Tensor) -> float:
    """Decidability: the distance between the mean cosines of mates and of impostors, in their mean deviation.

    Args:
        embeddings: (n, d) float.
        classes: (n,) int64.

    Source: Daugman, "The importance of being random" (2003), section 4.
    """
    unit = functional.normalize(embeddings, dim=1)
    above = torch.ones(len(unit), len(unit), dtype=torch.bool, device=unit.device).triu(1)
    same = classes[:, None] == classes[None]
    cosines = unit @ unit.T
    mates, impostors = cosines[above & same], cosines[above & ~same]
    return float((mates.mean() - impostors.mean()) / ((mates.var() + impostors.var()) / 2).sqrt())


def _comparable(rows: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first of some faces, or none where too few show one person or all do."""
    rows = rows[:_COMPARED]
    counts = np.unique(classes[rows], return_counts=True)[1]
    return rows if (counts * (counts - 1) // 2).sum() >= _LEAST_MATES and len(counts) > 1 else rows[:0]


def _written(state: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
