"""The recipes that come with the code."""

from pathlib import Path

import pytest

import model_training
from model_training.comparison import Comparison
from model_training.config import DistillationRecipe, TeacherRecipe
from model_training.detector.recipe import DetectorRecipe
from model_training.mask.recipe import MaskRecipe

KINDS = {"compare": Comparison, "detector": DetectorRecipe, "mask": MaskRecipe, "teacher": TeacherRecipe}
RECIPES = sorted((Path(model_training.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_is_one(path):
    kind = KINDS.get(path.stem.partition("-")[0], DistillationRecipe)
    assert kind.from_toml(path).name


@pytest.mark.parametrize(
    ("line", "message"),
    [('objective = "cosine"', "objective"), ("batchs = 3", "batchs"), ("averaging = 1.0", "averaging")],
)
def test_a_key_or_value_that_means_nothing_is_refused(tmp_path, line, message):
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "some"\n{line}\n')
    with pytest.raises(ValueError, match=message):
        DistillationRecipe.from_toml(path)
