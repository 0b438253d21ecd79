"""Lessons from fresh views: what a batch holds, what is held out, and that a run on them learns and resumes."""

import copy

import numpy as np
import pytest
import torch

from model_training.backbones.units import fold_batch_norms
from model_training.config import DistillationRecipe
from model_training.data.bank import ViewBank, label_views
from model_training.data.faces import NOBODY, AlignedFaces, DataError
from model_training.training.lessons import FreshLessons, StoredLessons
from model_training.training.trainer import Trainer
from tests.unit.model_training.common import TINY, MeanColours, random_network

CPU = torch.device("cpu")
RECIPE = DistillationRecipe(
    name="tiny", epochs=6, batch=8, warmup_steps=2, held_out=0.15, checkpoint_every=5, learning_rate=5e-3,
    anneal_until=0.5, bf16=False, compile=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def faces():
    """40 crops in one folder without names, 12 of six people in another."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (52, 7, 7, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    nobody = AlignedFaces(crops[:40], [f"{row}.jpg" for row in range(40)])
    named = AlignedFaces(crops[40:], [f"person{row // 2}/{row}.jpg" for row in range(12)])
    return [nobody, named]


def lessons(faces, **changes):
    recipe = RECIPE.model_copy(update=changes)
    return FreshLessons(faces, random_network(TINY), recipe, CPU, [False, True])


def test_labels_are_the_teachers_of_the_very_pixels(faces):
    batch = next(iter(lessons(faces).batches(0, 0)))
    assert batch.pixels.shape == (8, 3, 112, 112) and batch.maps == []
    with torch.no_grad():
        expected = random_network(TINY)(batch.pixels)
    assert torch.allclose(batch.labels, expected, atol=1e-4)


def test_a_batch_depends_on_epoch_and_step_alone(faces):
    source = lessons(faces)
    epoch = list(source.batches(1, 0))
    assert len(epoch) == source.steps_per_epoch == 5
    rest = list(source.batches(1, 3))
    assert [torch.equal(a.pixels, b.pixels) for a, b in zip(epoch[3:], rest, strict=True)] == [True, True]
    assert not torch.equal(epoch[0].pixels, next(iter(source.batches(2, 0))).pixels)


def test_faces_held_out_are_clean_unnamed_and_never_shown(faces):
    source = lessons(faces)
    held_out = torch.cat([batch.pixels for batch in source.held_out()])
    assert len(held_out) == 6
    originals = {face.tobytes() for face in faces[0].crops}
    shown = (held_out * 128 + 127.5).round().byte().numpy().transpose(0, 2, 3, 1)[..., ::-1]
    assert all(np.ascontiguousarray(view).tobytes() in originals for view in shown)
    assert not set(source._held_out.tolist()) & set(source._rows.tolist())
    assert all((batch.classes == NOBODY).all() for batch in source.held_out())


def test_of_stored_views_faces_are_held_out_whole_from_all_folders(faces, tmp_path):
    half = [faces[0].only(range(20)), faces[0].only(range(20, 40)), faces[1]]
    label_views(half, MeanColours(), tmp_path, views_per_face=3, seed=1, identities=[False, False, True])
    source = StoredLessons(ViewBank(tmp_path), RECIPE.model_copy(update={"held_out": 0.3}), CPU)
    held_out = set((source._held_out // 3).tolist())
    assert len(held_out) == 12 and len(source._held_out) == 36
    assert min(held_out) < 20 <= max(held_out) < 40
    assert not held_out & set((source._train_rows // 3).tolist())
    assert len(source._train_rows) == 3 * 52 - 36
    assert sum(len(batch) for batch in source.held_out()) == 36
    assert source.steps_per_epoch == len(list(source.batches(0, 0))) == 15


def test_persons_are_known_where_a_view_shows_one_alone(faces):
    source = lessons(faces)
    assert source.people == 6
    classes = torch.cat([batch.classes for epoch in range(4) for batch in source.batches(epoch, 0)])
    assert set(classes.tolist()) == {NOBODY, *range(6)}
    means = source.class_means()
    assert means.shape == (6, TINY.dimension)
    assert np.linalg.norm(means, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_without_names_there_are_no_means(faces):
    source = FreshLessons(faces[:1], random_network(TINY), RECIPE, CPU)
    with pytest.raises(DataError):
        source.class_means()


def test_maps_come_with_the_labels_where_stages_are_compared(faces):
    source = lessons(faces, stage_weights=(0.1, 0.1, 0.1))
    batch = next(iter(source.batches(0, 0)))
    assert [values.shape[1] for values in batch.maps] == [stage.channels for stage in source.stages] == [4, 6, 8]
    part = batch.part(1, 2)
    assert torch.equal(part.pixels, batch.pixels[1::2]) and torch.equal(part.maps[2], batch.maps[2][1::2])


def test_too_few_faces_are_refused(faces):
    with pytest.raises(ValueError, match="do not make a batch"):
        lessons(faces, batch=64)


def test_a_run_learns_and_an_interruption_changes_nothing(faces, tmp_path):
    start = fold_batch_norms(random_network(TINY))
    torch.nn.init.normal_(start.fc.weight, std=0.1)

    def trainer(folder):
        return Trainer(copy.deepcopy(start), lessons(faces), RECIPE, folder)

    whole = trainer(tmp_path / "whole")
    before = whole.held_out_cosine()
    whole.train()
    assert 1 - whole.held_out_cosine() < 0.3 * (1 - before)
    trainer(tmp_path / "parts").train(until=12)
    second = trainer(tmp_path / "parts")
    assert second.resume() and second.step == 12
    second.train()
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, second.student.state_dict()[name]), name
