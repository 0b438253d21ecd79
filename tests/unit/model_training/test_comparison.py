"""Recipes side by side."""

import json

import numpy as np
import pytest
import torch

from model_training.backbones.units import fold_batch_norms
from model_training.comparison import Comparison, run_comparison
from model_training.data.faces import AlignedFaces
from tests.unit.model_training.common import TINY, random_network

TEXT = """
name = "tiny"
seeds = [1, 2]
[recipe]
batch = 8
epochs = 2
warmup_steps = 2
held_out = 0.2
checkpoint_every = 2
bf16 = false
compile = false
[variants.l2]
changes = { objective = "l2" }
[variants.fewer]
without = ["second"]
"""


@pytest.fixture
def comparison(tmp_path):
    (tmp_path / "c.toml").write_text(TEXT)
    return Comparison.from_toml(tmp_path / "c.toml")


def test_a_recipe_is_what_is_common_and_what_is_not(comparison):
    recipe = comparison.recipe_of("l2", 2)
    assert (recipe.name, recipe.objective, recipe.seed, recipe.batch) == ("tiny-l2", "l2", 2, 8)
    assert comparison.recipe_of("fewer", 1).objective == "angular"


@pytest.mark.parametrize("line", ["[variants.x]\nchanges = { batchs = 3 }", "[variants.x]\nwith = 1", "surplus = 1"])
def test_what_means_nothing_is_refused(tmp_path, line):
    (tmp_path / "c.toml").write_text(TEXT + line)
    with pytest.raises(ValueError):
        Comparison.from_toml(tmp_path / "c.toml")


def test_runs_leave_student_log_and_figures_and_are_not_repeated(comparison, tmp_path):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (32, 112, 112, 3), dtype=np.uint8)
    names = [f"{row}.jpg" for row in range(16)]
    faces = {"first": AlignedFaces(crops[:16], names), "second": AlignedFaces(crops[16:], names)}
    start = fold_batch_norms(random_network(TINY))

    def run():
        device = torch.device("cpu")
        return list(
            run_comparison(comparison, ["l2", "fewer"], faces, set(), random_network(TINY), start, tmp_path, device)
        )

    ended = run()
    assert [(variant, seed) for variant, seed, _ in ended] == [("l2", 1), ("fewer", 1), ("l2", 2), ("fewer", 2)]
    told = json.loads((tmp_path / "fewer" / "2" / "run.json").read_text())
    assert told["faces"] == ["first"] and told["steps"] == 2 and told["held_out_cosine"] == pytest.approx(ended[3][2])
    assert (tmp_path / "l2" / "1" / "student.onnx").stat().st_size > 1000
    assert run() == []
