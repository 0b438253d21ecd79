"""Objectives side by side: the same student from the same start, on the same views, as often as there are seeds."""

from __future__ import annotations

import copy
import json
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from model_training.backbones.units import MobileBackbone, set_slope_factor
from model_training.config import DistillationRecipe
from model_training.data.faces import AlignedFaces
from model_training.shipping.export import export_onnx
from model_training.training.lessons import FreshLessons
from model_training.training.trainer import Trainer, trained_weights


class Variant(BaseModel):
    """What is different in one row of a comparison.

    Attributes:
        changes: keys of the recipe.
        without: names of folders of faces that it does not see.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    changes: dict[str, Any] = Field(default_factory=dict)
    without: tuple[str, ...] = ()


class Comparison(BaseModel):
    """Several recipes that differ in little, read from TOML.

    Attributes:
        seeds: of the views, their order and whatever starts at random.
        recipe: what all have in common, but for name and seed.
        variants: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    seeds: tuple[int, ...] = Field(min_length=1)
    recipe: dict[str, Any]
    variants: dict[str, Variant] = Field(min_length=1)

    @classmethod
    def from_toml(cls, path: Path) -> Comparison:
        """Read a comparison.

        Raises:
            ValueError: a key is unknown or a value out of range, also in any of the recipes.
        """
        comparison = cls.model_validate(tomllib.loads(path.read_text()))
        for variant in comparison.variants:
            comparison.recipe_of(variant, comparison.seeds[0])
        return comparison

    def recipe_of(self, variant: str, seed: int) -> DistillationRecipe:
        """The whole recipe of one run."""
        changes = self.variants[variant].changes
        return DistillationRecipe.model_validate(
            {**self.recipe, **changes, "name": f"{self.name}-{variant}", "seed": seed}
        )


def run_comparison(
    comparison: Comparison,
    variants: list[str],
    faces: Mapping[str, AlignedFaces],
    identities: set[str],
    teacher: MobileBackbone,
    start: MobileBackbone,
    folder: Path,
    device: torch.device,
) -> Iterator[tuple[str, int, float]]:
    """Train what has not ended yet; each run leaves its log, `student.onnx` and `run.json` in a folder of its own.

    Args:
        comparison: the recipes.
        variants: those to run.
        faces: by name of their folder.
        identities: names of folders whose pictures lie in a sub-folder for each person.
        teacher: labels the views.
        start: what every student is a copy of.
        folder: where `VARIANT/SEED/` go.
        device: where to train.

    Yields:
        Variant, seed and the cosine to the teacher on held-out faces, as runs end.
    """
    for seed in comparison.seeds:
        for variant in variants:
            recipe = comparison.recipe_of(variant, seed)
            out = folder / variant / str(seed)
            if (out / "run.json").exists():
                continue
            seen = {name: part for name, part in faces.items() if name not in comparison.variants[variant].without}
            named = [name in identities for name in seen]
            lessons = FreshLessons(list(seen.values()), copy.deepcopy(teacher), recipe, device, named)
            started = time.monotonic()
            trainer = Trainer(copy.deepcopy(start), lessons, recipe, out, device)
            trainer.resume()
            trainer.train()
            cosine = trainer.held_out_cosine()
            student = copy.deepcopy(start).cpu()
            student.load_state_dict(trained_weights(trainer.checkpoint_path)[0])
            set_slope_factor(student, 1.0 if recipe.anneal_until is None else 0.0)
            export_onnx(student, out / "student.onnx")
            about = {
                "recipe": recipe.model_dump(mode="json"),
                "faces": sorted(seen),
                "steps": trainer.total_steps,
                "held_out_cosine": cosine,
                "seconds": round(time.monotonic() - started, 1),
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "torch": torch.__version__,
            }
            (out / "run.json").write_text(json.dumps(about, indent=2) + "\n")
            yield variant, seed, cosine
