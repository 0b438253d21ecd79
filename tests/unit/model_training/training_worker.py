"""A tiny run: in the tests' own process, or in several that `torchrun` starts.

python -m torch.distributed.run --nproc-per-node 2 -m tests.unit.model_training.training_worker BANK RUN STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from model_training.backbones.units import fold_batch_norms
from model_training.config import DistillationRecipe
from model_training.data.bank import ViewBank
from model_training.training.lessons import StoredLessons
from model_training.training.processes import joined
from model_training.training.trainer import Trainer
from tests.unit.model_training.common import TINY, random_network

RECIPE = DistillationRecipe(
    name="tiny",
    epochs=3,
    batch=8,
    warmup_steps=2,
    anneal_until=0.5,
    held_out=0.1,
    checkpoint_every=4,
    learning_rate=5e-3,
    bf16=False,
    compile=False,
)


def learner(lesson, folder, **changes):
    """A student as in practice: its teacher without BatchNorms, here with a last layer that has to be learnt anew."""
    student = fold_batch_norms(random_network(TINY))
    torch.nn.init.normal_(student.fc.weight, std=0.1)
    torch.nn.init.zeros_(student.fc.bias)
    recipe = RECIPE.model_copy(update={"epochs": 12, **changes})
    return Trainer(student, StoredLessons(lesson, recipe, torch.device("cpu")), recipe, folder)


if __name__ == "__main__":
    with joined(torch.device("cpu")):
        learner(ViewBank(Path(sys.argv[1])), Path(sys.argv[2])).train(until=int(sys.argv[3]))
