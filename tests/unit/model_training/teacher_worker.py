"""A small teacher's training, in the tests' own process or in several that `torchrun` starts.

python -m torch.distributed.run --nproc-per-node 2 -m tests.unit.model_training.teacher_worker FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from model_training.backbones.mobilefacenet import MobileFaceNet
from model_training.config import TeacherRecipe
from model_training.objectives.partial_softmax import PartialSoftmax
from model_training.training.processes import Peers, joined
from model_training.training.teacher import TeacherTrainer
from tests.unit.model_training.common import TINY

RECIPE = TeacherRecipe(
    name="tiny-teacher",
    dimension=8,
    sampled_share=0.5,
    scale=16.0,
    epochs=4,
    batch=16,
    learning_rate=1e-2,
    warmup_steps=2,
    augmented=0.3,
    held_out=0.2,
    checkpoint_every=3,
    bf16=False,
    compile=False,
)


class Colours:
    """Eight faces each of ten people, who are told apart by two colours."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        colours = rng.integers(0, 256, (10, 2, 1, 1, 3))
        self.classes = np.repeat(np.arange(10), 8)
        halves = np.repeat(colours, 8, axis=0) + rng.integers(-20, 20, (80, 2, 56, 112, 3))
        self._crops = np.clip(halves, 0, 255).astype(np.uint8).reshape(80, 112, 112, 3)

    def crops(self, rows: np.ndarray) -> np.ndarray:
        return self._crops[rows]


def trainer(folder: Path, recipe: TeacherRecipe = RECIPE) -> TeacherTrainer:
    torch.manual_seed(recipe.seed)
    return TeacherTrainer(MobileFaceNet(TINY), Colours(), recipe, folder)


def softmax_of(rank: int, peers: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of a batch shared among processes, and its gradients for this one's faces and classes."""
    generator = torch.Generator().manual_seed(3)
    faces, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 6, 3, 2, 6, 5])
    own = faces[rank::peers].clone().requires_grad_()
    softmax = PartialSoftmax(7, 4, scale=8.0, rank=rank, peers=peers, seed=2)
    loss = softmax(own, labels[rank::peers])
    loss.backward()
    return loss.detach(), own.grad, softmax.hyperplanes.grad.to_dense()


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    with joined(torch.device("cpu")):
        here = Peers.here()
        torch.save(softmax_of(here.rank, here.count), out / f"softmax-{here.rank}.pt")
        trainer(out / "whole").train()
        trainer(out / "halved").train(until=7)
        resumed = trainer(out / "halved")
        assert resumed.resume() and resumed.step == 7
        resumed.train()
