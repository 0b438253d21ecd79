"""The training loop: one process or several, bfloat16 autocast, checkpoints, resume. It never sees a benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from model_training.backbones.stages import Backbone
from model_training.backbones.units import set_slope_factor
from model_training.config import DistillationRecipe
from model_training.objectives.distillation import Distillation, Lesson
from model_training.objectives.margins import AdaptiveCentres, MarginSoftmax
from model_training.objectives.stage_matching import StageMatching
from model_training.training.lessons import Batch, Lessons
from model_training.training.processes import Peers
from model_training.training.run_log import RunLog

_STUDENT = "student."
# Steps between looks at the loss: each look waits for the device.
_LOOK_EVERY = 20


class CheckpointError(ValueError):
    """A checkpoint belongs to another recipe or cannot be read."""


def learning_rate_at(step: int, total: int, recipe: DistillationRecipe) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, total - recipe.warmup_steps)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def slope_factor_at(step: int, total: int, recipe: DistillationRecipe) -> float:
    """What is left of the PReLU slopes at a step: 1 at the start, 0 from `anneal_until` on."""
    if recipe.anneal_until is None:
        return 1.0
    if not recipe.anneal_until:
        return 0.0
    return max(0.0, 1.0 - step / max(1.0, recipe.anneal_until * total))


class Trainer:
    """Distils a student, alone or with the processes that `torchrun` started.

    Args:
        student: the network, already initialised; trained in place.
        lessons: what it is shown, on `device`.
        recipe: how.
        folder: where checkpoints and logs go; a checkpoint found there is resumed.
        device: where to train.

    Raises:
        ValueError: a batch cannot be shared evenly, the recipe asks for stages that the lessons do not have, or for
            AdaDistill in several processes.
        DataError: the recipe asks for persons and the lessons know none.
    """

    def __init__(
        self,
        student: Backbone,
        lessons: Lessons,
        recipe: DistillationRecipe,
        folder: Path,
        device: torch.device | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self._recipe = recipe
        self._lessons = lessons
        self._folder = folder
        self._device = device or torch.device("cpu")
        self._peers = Peers.here()
        if recipe.stage_weights and not lessons.stages:
            raise ValueError("comparing stages needs the teacher's network")
        if recipe.objective == "adadistill" and self._peers.count > 1:
            raise ValueError("AdaDistill's centres follow the faces of one process; it cannot be shared among several")
        parts = self._peers.count * recipe.accumulate
        if recipe.batch % parts:
            raise ValueError(f"a batch of {recipe.batch} does not divide into {parts} parts")
        folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(folder)
        self.student = student.to(self._device, memory_format=torch.channels_last).train()
        self._averaged = None
        if recipe.averaging is not None:
            self._averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging))
        self._module = _objective(student, lessons, recipe).to(self._device)
        self._run: nn.Module = self._module
        if self._peers.count > 1:
            # A batch without a known person gives learned hyperplanes no gradient.
            self._run = DistributedDataParallel(self._module, find_unused_parameters=recipe.needs_people)
        trained = [p for p in self._module.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            fused=self._device.type == "cuda",
        )
        self.total_steps = lessons.steps_per_epoch * recipe.epochs
        self.step = 0

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
        state = torch.load(self.checkpoint_path, weights_only=True, map_location=self._device)
        if state["recipe"] != self._recipe.model_dump_json():
            raise CheckpointError(f"{self.checkpoint_path} belongs to another recipe")
        student = {_STUDENT + name: value for name, value in state["student"].items()}
        self._module.load_state_dict(student | state["rest"])
        if self._averaged is not None:
            self._averaged.module.load_state_dict(state["averaged"])
            self._averaged.n_averaged.fill_(state["step"])
        self._optimizer.load_state_dict(state["optimizer"])
        # Classes are sampled by it.
        torch.set_rng_state(state["rng"].cpu())
        self.step = int(state["step"])
        return True

    def train(self, until: int | None = None) -> None:
        """Run to the end of the recipe, or to step `until`."""
        end = min(self.total_steps, until if until is not None else self.total_steps)
        seen: list[Tensor] = []
        with tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            desc=self._recipe.name,
            disable=not self._peers.leads,
            mininterval=1.0,
        ) as bar:
            for batch in self._batches():
                if self.step >= end:
                    break
                seen.append(self._train_step(batch))
                self.step += 1
                bar.update()
                due = self.step % self._recipe.checkpoint_every == 0 or self.step == end
                if len(seen) < _LOOK_EVERY and not due:
                    continue
                loss, cosine = self._mean(seen)
                seen.clear()
                bar.set_postfix(loss=f"{loss:.4f}", cosine=f"{cosine:.4f}", refresh=False)
                if self._peers.leads and due:
                    self._report(loss, cosine)
                    self._save()
        self._log.close()

    def _mean(self, seen: list[Tensor]) -> tuple[float, float]:
        """Loss and cosine over the last steps of all processes; the one place that waits for the device."""
        loss, cosine = self._peers.mean(torch.stack(seen).mean(dim=0)).tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss is not finite in the {len(seen)} steps before {self.step}")
        return loss, cosine

    def held_out_cosine(self) -> float:
        """Mean cosine between the student, averaged if its weights are, and the teacher on views that never train."""
        network = self.student
        if self._averaged is not None and self.step:
            network = self._averaged.module
            set_slope_factor(network, slope_factor_at(self.step - 1, self.total_steps, self._recipe))
        cosines = []
        network.eval()
        with torch.no_grad():
            for batch in self._lessons.held_out():
                with self._autocast():
                    embedding = network(batch.pixels).float()
                cosines.append(torch.nn.functional.cosine_similarity(embedding, batch.labels, dim=1))
        network.train()
        return float(torch.cat(cosines).mean())

    def _train_step(self, batch: Batch) -> Tensor:
        """Mean loss and cosine of this process, as (2,) on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.total_steps, self._recipe)
        set_slope_factor(self.student, slope_factor_at(self.step, self.total_steps, self._recipe))
        self._optimizer.zero_grad(set_to_none=True)
        parts = self._recipe.accumulate
        told = torch.zeros(2, device=self._device)
        for number in range(parts):
            part = batch.part(number, parts) if parts > 1 else batch
            # Gradients are exchanged once a step, with the last part.
            waits = isinstance(self._run, DistributedDataParallel) and number < parts - 1
            with self._run.no_sync() if waits else nullcontext():
                with self._autocast():
                    loss, cosine = self._run(part.pixels, Lesson(part.labels, part.classes, part.maps))
                (loss / parts).backward()
            told += torch.stack([loss.detach().float(), cosine.float()]) / parts
        torch.nn.utils.clip_grad_norm_(self._module.parameters(), 5.0)
        self._optimizer.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self.student)
        return told

    def _batches(self) -> Iterator[Batch]:
        epoch, skip = divmod(self.step, self._lessons.steps_per_epoch)
        while epoch < self._recipe.epochs:
            yield from self._lessons.batches(epoch, skip)
            epoch, skip = epoch + 1, 0

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.bf16)

    def _report(self, loss: float, cosine: float) -> None:
        self._log.write(
            self.step,
            {
                "loss": loss,
                "cosine": cosine,
                "held_out_cosine": self.held_out_cosine(),
                "slope_factor": slope_factor_at(self.step, self.total_steps, self._recipe),
                "learning_rate": learning_rate_at(self.step - 1, self.total_steps, self._recipe),
            },
        )

    def _save(self) -> None:
        state = {
            "recipe": self._recipe.model_dump_json(),
            "student": self.student.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.module.state_dict(),
            "rest": {name: value for name, value in self._module.state_dict().items() if not name.startswith(_STUDENT)},
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)


def trained_weights(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """What a run has made so far, averaged if its recipe says so, and the steps it took."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    return state["averaged"] or state["student"], int(state["step"])


def _objective(student: Backbone, lessons: Lessons, recipe: DistillationRecipe) -> Distillation:
    """The recipe's objective, with what it draws from the lessons and the teacher."""
    means = torch.from_numpy(lessons.class_means()) if recipe.needs_people else None
    identity = None
    if recipe.identity != "none":
        inherited = means if recipe.hyperplanes == "inherited" else None
        identity = MarginSoftmax(lessons.people, student.dimension, recipe.identity, inherited=inherited)
    stages = None
    if recipe.stage_weights:
        stages = StageMatching(student.feature_stages(), lessons.stages, recipe.stage_weights)
    return Distillation(
        student,
        recipe.objective,
        hyperplanes=means if recipe.objective == "logits" else None,
        centres=AdaptiveCentres(lessons.people, student.dimension) if recipe.objective == "adadistill" else None,
        stages=stages,
        identity=identity,
        identity_weight=recipe.identity_weight,
        compiled=recipe.compile is True,
    )
