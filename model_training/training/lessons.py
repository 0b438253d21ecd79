"""What a student is shown step by step: views on its device, and what the teacher says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_training.backbones.stages import Backbone, Stage
from model_training.backbones.units import MobileBackbone, fold_batch_norms
from model_training.config import DistillationRecipe
from model_training.data.bank import NOBODY, StoredViews, ViewBank, class_means
from model_training.data.device_views import Chance, fresh_views
from model_training.data.faces import AlignedFaces, DataError, person_numbers
from model_training.training.prefetch import ahead
from model_training.training.processes import Peers
from service.contract import Preprocessing, to_network_input


@dataclass(frozen=True)
class Batch:
    """Views and what is known of them, on the device that trains.

    Attributes:
        pixels: (n, 3, 112, 112) float32, normalised as the networks read them, channels last.
        labels: (n, d) float32, the teacher's raw embeddings.
        classes: (n,) int64, whom a view shows; `NOBODY` where that is not known.
        maps: the teacher's at each of its stages; empty where none are compared.
    """

    pixels: Tensor
    labels: Tensor
    classes: Tensor
    maps: list[Tensor]

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, number: int, parts: int) -> Batch:
        """Every `parts`-th row from `number` on."""
        return Batch(
            self.pixels[number::parts],
            self.labels[number::parts],
            self.classes[number::parts],
            [values[number::parts] for values in self.maps],
        )


class Lessons(Protocol):
    """Where a trainer gets its batches from.

    Attributes:
        people: persons that it knows.
        stages: of the teacher, whose maps come with a batch; empty where none are compared.
        steps_per_epoch: batches of one pass.
    """

    people: int
    stages: tuple[Stage, ...]
    steps_per_epoch: int

    def class_means(self) -> NDArray[np.float32]:
        """(people, d) float32 of unit length: each person's mean direction by the teacher.

        Raises:
            DataError: a person has no view, or no person is known.
        """

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Share that this process has of every batch of an epoch but the first `skip`; the same at every call."""

    def held_out(self) -> Iterator[Batch]:
        """Views that never train."""


class StoredLessons:
    """Lessons from a bank of views that were labelled beforehand: for machines on which labelling is what takes long.

    Of a face that is held out no view trains, except as what is mixed into another's.

    Args:
        bank: views with labels.
        recipe: batch size, share held out, seed.
        device: where the student trains.
        teacher: the network that labelled the views, where its stages are to be compared too.

    Raises:
        ValueError: the bank is too small for one batch beside the views held out.
    """

    def __init__(
        self, bank: ViewBank, recipe: DistillationRecipe, device: torch.device, teacher: Backbone | None = None
    ) -> None:
        self._bank, self._recipe, self._device = bank, recipe, device
        self._peers = Peers.here()
        self._teacher = teacher if recipe.stage_weights else None
        self.stages: tuple[Stage, ...] = ()
        if self._teacher is not None:
            self._teacher.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
            self.stages = self._teacher.feature_stages()
        self.people = bank.people
        shown = np.asarray(bank.classes[:: bank.views_per_face])
        held_out = _faces_held_out(shown, recipe, at_least=math.ceil(recipe.batch / bank.views_per_face))
        self._held_out = _rows_of(held_out, bank.views_per_face)
        self._train_rows = np.setdiff1d(np.arange(len(bank)), self._held_out)
        self.steps_per_epoch = len(self._train_rows) // recipe.batch
        if self.steps_per_epoch < 1:
            raise ValueError(f"{len(bank)} views do not make a batch of {recipe.batch} beside those held out")

    def class_means(self) -> NDArray[np.float32]:
        """See `Lessons`."""
        return self._bank.class_means()

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Lessons`."""
        stored = self._bank.batches(
            self._recipe.batch,
            epoch,
            self._recipe.seed,
            self._train_rows,
            skip,
            rank=self._peers.rank,
            peers=self._peers.count,
        )
        return map(self._on_device, ahead(stored))

    def held_out(self) -> Iterator[Batch]:
        """See `Lessons`."""
        for start in range(0, len(self._held_out), self._recipe.batch):
            yield self._on_device(self._bank.at(self._held_out[start : start + self._recipe.batch]))

    def _on_device(self, stored: StoredViews) -> Batch:
        pixels = torch.from_numpy(to_network_input(stored.views, Preprocessing())).to(self._device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        if self._teacher is not None:
            with torch.no_grad(), _autocast(self._recipe, self._device):
                maps = self._teacher.forward_features(pixels)[1]
        labels, classes = torch.from_numpy(stored.labels), torch.from_numpy(stored.classes)
        return Batch(pixels, labels.to(self._device), classes.to(self._device), maps)


class FreshLessons:
    """Lessons from views that nobody has seen before, each labelled as it is drawn: for a GPU and many epochs.

    The faces stay on the device. A view depends on the recipe's seed, the epoch and the step alone. Faces that are held
    out never train in any view; they are looked at as they are.

    Args:
        faces: aligned crops.
        teacher: labels the views; a mobile one's BatchNorms are folded.
        recipe: batch size, share held out, seed, precision.
        device: where the student trains.
        identities: for each of `faces`, whether its pictures lie in a sub-folder for each person.

    Raises:
        ValueError: there are too few faces for one batch beside those held out.
    """

    def __init__(
        self,
        faces: list[AlignedFaces],
        teacher: Backbone,
        recipe: DistillationRecipe,
        device: torch.device,
        identities: list[bool] | None = None,
    ) -> None:
        self._recipe, self._device = recipe, device
        self._peers = Peers.here()
        teacher = teacher.eval()
        if isinstance(teacher, MobileBackbone):
            teacher = fold_batch_norms(teacher)
        self._teacher = teacher.requires_grad_(False)
        self._teacher.to(device, memory_format=torch.channels_last)
        self.stages = self._teacher.feature_stages() if recipe.stage_weights else ()
        self._run: Callable[[Tensor], Any] = self._teacher.forward_features if self.stages else self._teacher.forward
        self._label = torch.compile(self._run, dynamic=False) if recipe.compile else self._run
        people = person_numbers(faces, identities or [False] * len(faces))
        self.people = int(people.max(initial=NOBODY)) + 1
        self._held_out = _faces_held_out(people, recipe, at_least=1)
        self._rows = np.setdiff1d(np.arange(len(people)), self._held_out)
        self.steps_per_epoch = len(self._rows) // recipe.batch
        if self.steps_per_epoch < 1:
            raise ValueError(f"{len(people)} faces do not make a batch of {recipe.batch} beside those held out")
        crops = np.concatenate([np.asarray(part.crops) for part in faces])
        planar = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2))
        self._crops = torch.from_numpy(planar).to(device)
        self._people = torch.from_numpy(people).to(device)

    def class_means(self) -> NDArray[np.float32]:
        """See `Lessons`."""
        if not self.people:
            raise DataError("no folder of faces says whom they show")
        labels, classes = [], []
        for start in range(0, len(self._rows), self._recipe.batch):
            batch = self._clean(self._rows[start : start + self._recipe.batch])
            labels.append(batch.labels.cpu().numpy())
            classes.append(batch.classes.cpu().numpy())
        return class_means(np.concatenate(labels), np.concatenate(classes), self.people)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """See `Lessons`."""
        order = np.random.default_rng([self._recipe.seed, epoch]).permutation(self._rows)
        size = self._recipe.batch
        for step in range(skip, self.steps_per_epoch):
            chosen = order[step * size : (step + 1) * size][self._peers.rank :: self._peers.count]
            seed = np.random.SeedSequence([self._recipe.seed, epoch, step, self._peers.rank]).generate_state(1)
            rows = torch.from_numpy(chosen).to(self._device)
            chance = Chance(int(seed[0]), self._device)
            views, mixed = fresh_views(self._crops[rows], chance, self._recipe.composed)
            classes = torch.where(mixed, torch.full_like(rows, NOBODY), self._people[rows])
            yield self._labelled(views, classes, self._label)

    def held_out(self) -> Iterator[Batch]:
        """See `Lessons`."""
        for start in range(0, len(self._held_out), self._recipe.batch):
            yield self._clean(self._held_out[start : start + self._recipe.batch])

    def _clean(self, rows: NDArray[np.int64]) -> Batch:
        places = torch.from_numpy(rows).to(self._device)
        # Not the compiled one: batches of other sizes would each compile anew.
        return self._labelled(self._crops[places].float(), self._people[places], self._run)

    def _labelled(self, views: Tensor, classes: Tensor, run: Callable[[Tensor], Any]) -> Batch:
        preprocessing = Preprocessing()
        pixels = ((views - preprocessing.mean) * preprocessing.scale).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), _autocast(self._recipe, self._device):
            answer = run(pixels)
        labels, maps = answer if self.stages else (answer, [])
        return Batch(pixels, labels.float(), classes, maps)


def _faces_held_out(people: NDArray[np.int64], recipe: DistillationRecipe, *, at_least: int) -> NDArray[np.int64]:
    """Which faces never train, by chance and in order, given whom each shows."""
    # Of a person whose name is known there may be one picture alone, and that has to train.
    unnamed = np.flatnonzero(people == NOBODY)
    order = np.random.default_rng([recipe.seed, len(people)]).permutation(unnamed if len(unnamed) else len(people))
    return np.sort(order[: max(at_least, round(len(order) * recipe.held_out))])


def _rows_of(faces: NDArray[np.int64], views_per_face: int) -> NDArray[np.int64]:
    """All rows of a bank that show these faces."""
    return np.asarray(faces[:, None] * views_per_face + np.arange(views_per_face)).ravel()


def _autocast(recipe: DistillationRecipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16)
