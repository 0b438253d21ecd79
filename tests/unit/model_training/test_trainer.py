"""The loop on a tiny network: it learns, and an interruption changes nothing."""

import csv
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from model_training.backbones.units import fold_batch_norms
from model_training.config import DistillationRecipe
from model_training.data.bank import NOBODY, ViewBank
from model_training.data.faces import DataError
from model_training.training.lessons import StoredLessons
from model_training.training.processes import Peers
from model_training.training.trainer import CheckpointError, Trainer, learning_rate_at, slope_factor_at, trained_weights
from service.contract import Preprocessing, to_network_input
from tests.unit.model_training.common import TINY, MeanColours, random_network
from tests.unit.model_training.training_worker import RECIPE, learner


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """48 pictures of two colours each: 40 to train on, 8 held out, so 5 steps an epoch and 15 in all."""
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    views = np.empty((48, 112, 112, 3), dtype=np.uint8)
    views[:, :56] = rng.integers(0, 256, (48, 1, 1, 3))
    views[:, 56:] = rng.integers(0, 256, (48, 1, 1, 3))
    np.save(folder / "views.npy", views)
    np.save(folder / "labels.npy", MeanColours().embed(views))
    (folder / "bank.json").write_text(json.dumps({"labelled": 48}))
    return ViewBank(folder)


def stored(bank, recipe, teacher=None):
    return StoredLessons(bank, recipe, torch.device("cpu"), teacher)


def new_trainer(bank, folder, recipe=RECIPE):
    return Trainer(random_network(TINY), stored(bank, recipe), recipe, folder)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.student.state_dict().items()}


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(bank, tmp_path_factory):
    trainer = new_trainer(bank, tmp_path_factory.mktemp("run"))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def lesson(bank, tmp_path_factory):
    """The same views, labelled by a network of the student's own shape."""
    folder = tmp_path_factory.mktemp("lesson")
    teacher = random_network(TINY)
    with torch.no_grad():
        labels = teacher(torch.from_numpy(to_network_input(np.asarray(bank.views), Preprocessing()))).numpy()
    np.save(folder / "views.npy", bank.views)
    np.save(folder / "labels.npy", labels)
    (folder / "bank.json").write_text(json.dumps({"labelled": len(bank)}))
    return ViewBank(folder)


@pytest.fixture(scope="module")
def named_lesson(lesson, tmp_path_factory):
    """The same views, of which every third shows one of four people and the rest nobody known.

    The labels are taken about their mean: as they are, four random people all lie in one direction.
    """
    folder = tmp_path_factory.mktemp("named")
    np.save(folder / "views.npy", lesson.views)
    np.save(folder / "labels.npy", lesson.labels - lesson.labels.mean(axis=0))
    np.save(folder / "classes.npy", [row // 3 % 4 if row % 3 == 0 else NOBODY for row in range(len(lesson))])
    (folder / "bank.json").write_text(json.dumps({"labelled": len(lesson), "people": 4}))
    return ViewBank(folder)


def log_of(trainer):
    with (trainer.checkpoint_path.parent / "log.csv").open() as stream:
        return list(csv.DictReader(stream))


class TestTraining:
    @pytest.mark.parametrize("objective", ["angular", "l2"])
    def test_the_loss_falls_and_the_student_gets_nearer_to_the_teacher(self, lesson, tmp_path, objective):
        trainer = learner(lesson, tmp_path, objective=objective)
        before = trainer.held_out_cosine()
        assert before < 0.6
        trainer.train()
        rows = log_of(trainer)
        assert trainer.step == trainer.total_steps == 60
        assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
        assert float(rows[-1]["held_out_cosine"]) == pytest.approx(trainer.held_out_cosine(), abs=1e-5)
        assert trainer.held_out_cosine() > 0.9

    def test_the_log_has_a_row_for_each_checkpoint_and_the_end(self, uninterrupted):
        rows = log_of(uninterrupted)
        assert [int(row["step"]) for row in rows] == [4, 8, 12, 15]
        # Half of 15 steps is 7.5: at step 4 a share of 3.5 / 7.5 is left.
        assert [float(row["slope_factor"]) for row in rows] == pytest.approx([3.5 / 7.5, 0.0, 0.0, 0.0], rel=1e-5)

    def test_held_out_views_are_looked_at_without_learning_from_them(self, uninterrupted):
        trainer = uninterrupted
        before = weights(trainer)
        trainer.held_out_cosine()
        assert_same_weights(weights(trainer), before)
        assert trainer.student.training

    def test_held_out_cosine_is_that_of_the_views_held_out(self, uninterrupted, bank):
        trainer = uninterrupted
        rows = stored(bank, RECIPE)._held_out
        assert len(rows) == 8
        pixels = (bank.views[rows][..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128
        with torch.no_grad():
            got = trainer.student.eval()(torch.from_numpy(pixels)).numpy()
        trainer.student.train()
        labels = bank.labels[rows]
        cosines = (got * labels).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(labels, axis=1)
        assert trainer.held_out_cosine() == pytest.approx(cosines.mean(), abs=1e-5)

    def test_bfloat16_learns_too(self, lesson, tmp_path):
        trainer = learner(lesson, tmp_path, bf16=True, epochs=8)
        before = trainer.held_out_cosine()
        assert before < 0.6
        trainer.train()
        assert trainer.held_out_cosine() > 0.9


class TestObjectives:
    @pytest.mark.parametrize(
        "changes",
        [
            {"objective": "logits"},
            {"objective": "adadistill"},
            {"objective": "none", "identity": "cosface", "hyperplanes": "learned"},
            {"identity": "arcface"},
            {"stage_weights": (0.1, 0.2, 0.3)},
        ],
        ids=lambda changes: "-".join(f"{value}" for value in changes.values()),
    )
    def test_each_runs_falls_and_resumes_to_the_same_weights(self, named_lesson, tmp_path, changes):
        def trainer(folder):
            student = fold_batch_norms(random_network(TINY))
            torch.nn.init.normal_(student.fc.weight, std=0.1, generator=torch.Generator().manual_seed(3))
            recipe = RECIPE.model_copy(update={"epochs": 6, **changes})
            return Trainer(student, stored(named_lesson, recipe, random_network(TINY)), recipe, folder)

        whole = trainer(tmp_path / "whole")
        whole.train()
        rows = log_of(whole)
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
        trainer(tmp_path / "halved").train(until=11)
        resumed = trainer(tmp_path / "halved")
        assert resumed.resume()
        resumed.train()
        assert_same_weights(weights(resumed), weights(whole))

    def test_stages_need_the_teachers_network(self, lesson, tmp_path):
        with pytest.raises(ValueError, match="teacher's network"):
            learner(lesson, tmp_path, stage_weights=(1.0, 1.0, 1.0))

    @pytest.mark.parametrize("changes", [{"objective": "logits"}, {"identity": "arcface"}])
    def test_persons_are_needed_where_they_are_learnt(self, lesson, tmp_path, changes):
        with pytest.raises(DataError, match="do not say whom they show"):
            learner(lesson, tmp_path, **changes)

    def test_the_teacher_stays_what_it_was(self, lesson, tmp_path):
        teacher = random_network(TINY)
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        recipe = RECIPE.model_copy(update={"stage_weights": (1.0, 1.0, 1.0)})
        Trainer(random_network(TINY), stored(lesson, recipe, teacher), recipe, tmp_path).train(until=3)
        assert_same_weights(teacher.state_dict(), before)

    def test_a_recipe_that_teaches_nothing_is_refused(self):
        with pytest.raises(ValueError, match="nothing to learn"):
            DistillationRecipe(name="idle", objective="none")


class TestLargeBatches:
    def test_a_batch_in_parts_trains_as_it_does_whole(self, lesson, tmp_path):
        whole, parts = learner(lesson, tmp_path / "1"), learner(lesson, tmp_path / "4", accumulate=4)
        whole.train(until=10)
        parts.train(until=10)
        for name, value in weights(whole).items():
            torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-5)

    def test_two_processes_train_as_one_does(self, lesson, tmp_path):
        alone = learner(lesson, tmp_path / "alone")
        alone.train(until=10)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "tests.unit.model_training.training_worker", str(lesson.folder), str(tmp_path / "shared"), "10",
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"})
        shared = torch.load(tmp_path / "shared" / "checkpoint.pt", weights_only=True)
        assert shared["step"] == 10
        for name, value in weights(alone).items():
            torch.testing.assert_close(shared["student"][name], value, rtol=1e-3, atol=1e-5)
        logged = log_of(alone)
        with (tmp_path / "shared" / "log.csv").open() as stream:
            for row, other in zip(logged, csv.DictReader(stream), strict=True):
                assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-2, abs=1e-4)

    def test_centres_that_only_one_process_would_keep_are_refused(self, named_lesson, tmp_path, monkeypatch):
        monkeypatch.setattr(Peers, "here", lambda: Peers(0, 2))
        with pytest.raises(ValueError, match="cannot be shared among several"):
            learner(named_lesson, tmp_path, objective="adadistill")

    def test_a_batch_that_does_not_divide_is_refused(self, lesson, tmp_path):
        with pytest.raises(ValueError, match="does not divide into 3 parts"):
            learner(lesson, tmp_path, accumulate=3)


class TestAveraging:
    def test_the_mean_of_the_weights_is_what_is_exported(self, lesson, tmp_path):
        trainer = learner(lesson, tmp_path, averaging=0.5)
        seen = []
        for step in range(1, 4):
            trainer.train(until=step)
            seen.append(trainer.student.fc.weight.detach().clone())
        # The first step's weights begin the mean.
        wanted = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
        averaged, steps = trained_weights(trainer.checkpoint_path)
        assert steps == 3
        torch.testing.assert_close(averaged["fc.weight"], wanted)

    def test_an_interrupted_run_goes_on_averaging(self, lesson, tmp_path):
        whole = learner(lesson, tmp_path / "whole", averaging=0.9)
        whole.train(until=12)
        learner(lesson, tmp_path / "halved", averaging=0.9).train(until=5)
        resumed = learner(lesson, tmp_path / "halved", averaging=0.9)
        resumed.resume()
        resumed.train(until=12)
        first, second = (trained_weights(run.checkpoint_path)[0] for run in (whole, resumed))
        assert_same_weights(first, second)
        assert resumed.held_out_cosine() == whole.held_out_cosine()

    def test_without_it_the_weights_are(self, uninterrupted):
        assert_same_weights(trained_weights(uninterrupted.checkpoint_path)[0], weights(uninterrupted))


class TestResume:
    @pytest.mark.parametrize("stopped_at", [3, 5, 7])
    def test_an_interrupted_run_ends_with_the_very_same_weights(self, uninterrupted, bank, tmp_path, stopped_at):
        """In an epoch, between two, and in the next; schedule and order of the views go on as if nothing was."""
        new_trainer(bank, tmp_path).train(until=stopped_at)
        resumed = new_trainer(bank, tmp_path)
        assert resumed.resume()
        assert resumed.step == stopped_at
        resumed.train()
        assert_same_weights(weights(resumed), weights(uninterrupted))

    def test_a_run_killed_between_checkpoints_repeats_the_steps_it_lost(
        self, uninterrupted, bank, tmp_path, monkeypatch
    ):
        killed = new_trainer(bank, tmp_path)
        step = killed._train_step

        def die_at_six(batch):
            if killed.step == 6:
                raise KeyboardInterrupt
            return step(batch)

        monkeypatch.setattr(killed, "_train_step", die_at_six)
        with pytest.raises(KeyboardInterrupt):
            killed.train()
        resumed = new_trainer(bank, tmp_path)
        assert resumed.resume()
        assert resumed.step == 4
        resumed.train()
        assert_same_weights(weights(resumed), weights(uninterrupted))
        assert log_of(resumed) == log_of(uninterrupted)

    def test_without_a_checkpoint_there_is_nothing_to_resume(self, bank, tmp_path):
        trainer = new_trainer(bank, tmp_path)
        assert not trainer.resume()
        assert trainer.step == 0

    def test_a_finished_run_trains_no_further(self, uninterrupted, bank, tmp_path):
        trainer = new_trainer(bank, tmp_path)
        (tmp_path / "checkpoint.pt").write_bytes(uninterrupted.checkpoint_path.read_bytes())
        assert trainer.resume()
        trainer.train()
        assert trainer.step == 15
        assert_same_weights(weights(trainer), weights(uninterrupted))

    @pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"seed": 2}, {"epochs": 4}, {"objective": "l2"}])
    def test_a_checkpoint_of_another_recipe_is_refused(self, uninterrupted, bank, tmp_path, change):
        (tmp_path / "checkpoint.pt").write_bytes(uninterrupted.checkpoint_path.read_bytes())
        trainer = new_trainer(bank, tmp_path, RECIPE.model_copy(update=change))
        with pytest.raises(CheckpointError, match="another recipe"):
            trainer.resume()

    def test_no_half_written_checkpoint_is_left(self, uninterrupted):
        names = sorted(path.name for path in uninterrupted.checkpoint_path.parent.iterdir())
        assert names == ["checkpoint.pt", "log.csv", "tensorboard"]


def test_a_bank_that_fills_no_batch_is_refused(bank, tmp_path):
    with pytest.raises(ValueError, match="batch of 48"):
        new_trainer(bank, tmp_path, RECIPE.model_copy(update={"batch": 48}))


class TestSchedules:
    LONG = RECIPE.model_copy(update={"warmup_steps": 10, "learning_rate": 1.0, "anneal_until": 0.25})

    @pytest.mark.parametrize(
        ("step", "rate"),
        # Linear to the peak over ten steps; half a cosine over the other hundred down to one hundredth.
        [
            (0, 0.1),
            (4, 0.5),
            (9, 1.0),
            (10, 1.0),
            (35, 0.01 + 0.99 * (0.5 + math.sqrt(0.125))),
            (60, 0.505),
            (110, 0.01),
            (999, 0.01),
        ],
    )
    def test_learning_rate(self, step, rate):
        assert learning_rate_at(step, 110, self.LONG) == pytest.approx(rate)

    def test_learning_rate_without_warm_up_starts_at_the_peak(self):
        assert learning_rate_at(0, 100, self.LONG.model_copy(update={"warmup_steps": 0})) == 1.0

    @pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (5, 0.8), (25, 0.0), (26, 0.0), (100, 0.0)])
    def test_slopes_go_linearly_to_zero(self, step, factor):
        assert slope_factor_at(step, 100, self.LONG) == pytest.approx(factor)

    def test_slopes_stay_where_nothing_is_annealed(self):
        kept = self.LONG.model_copy(update={"anneal_until": None})
        assert [slope_factor_at(step, 100, kept) for step in (0, 50, 100)] == [1.0, 1.0, 1.0]
