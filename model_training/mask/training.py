"""Training of the mask classifier: minutes on one thread, so that a run that was cut off begins anew."""

from __future__ import annotations

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from model_training.mask.examples import ExamplePainter
from model_training.mask.network import MaskNetwork
from model_training.mask.recipe import MaskRecipe
from service.vision.attributes.mask import mask_input

_LOG_EVERY = 50


@dataclass(frozen=True)
class Trained:
    """A finished run: the recipe it followed, and the network it made."""

    recipe: MaskRecipe
    network: MaskNetwork


def train(recipe: MaskRecipe, painter: ExamplePainter, run: Path) -> MaskNetwork:
    """Train a network and keep it, with a log of its losses, in a folder.

    The batch of a step depends on the recipe's seed and the step alone.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = MaskNetwork(recipe.channels).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))

    def drawn(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        crops, labels = painter.batch(recipe.batch, np.random.default_rng([recipe.seed, step]))
        targets = np.abs(labels - np.float32(recipe.smoothing))
        return torch.from_numpy(mask_input(crops)), torch.from_numpy(targets)

    with (
        (run / "log.csv").open("w", newline="") as stream,
        ThreadPoolExecutor(1) as ahead,
        tqdm(total=recipe.steps, unit="step", desc="training") as bar,
    ):
        log = csv.writer(stream)
        log.writerow(["step", "loss"])
        upcoming = ahead.submit(drawn, 0)
        recent = 0.0
        for step in range(recipe.steps):
            pixels, targets = upcoming.result()
            if step + 1 < recipe.steps:
                upcoming = ahead.submit(drawn, step + 1)
            loss = binary_cross_entropy_with_logits(network(pixels), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            recent += float(loss.detach())
            bar.update()
            if (step + 1) % _LOG_EVERY == 0:
                log.writerow([step + 1, f"{recent / _LOG_EVERY:.5f}"])
                bar.set_postfix(loss=f"{recent / _LOG_EVERY:.4f}")
                recent = 0.0
    torch.save({"recipe": recipe.model_dump_json(), "network": network.state_dict()}, run / "network.pt")
    return network.eval()


def load(run: Path) -> Trained:
    """What `train` left in a folder. Raises FileNotFoundError."""
    state = torch.load(run / "network.pt", weights_only=True)
    recipe = MaskRecipe.model_validate_json(state["recipe"])
    network = MaskNetwork(recipe.channels)
    network.load_state_dict(state["network"])
    return Trained(recipe, network.eval())


def _rate(step: int, recipe: MaskRecipe) -> float:
    """Of the peak: a linear warm-up, then a cosine down to nothing."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
