"""A teacher learns to tell people apart, alone and with others, and an interruption changes nothing."""

import csv
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model_training.backbones.catalogue import make_backbone
from model_training.cli import app
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.people import PreparedPeople, RecordedPeople, drawn_views, held_out_people, shuffled
from model_training.data.recordio import RecordFile
from model_training.training.teacher import separation_of
from model_training.training.trainer import CheckpointError
from tests.unit.model_training.teacher_worker import RECIPE, softmax_of
from tests.unit.model_training.teacher_worker import trainer as new_trainer
from tests.unit.model_training.test_sources import image_record, write_records


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def classes(folder, rank=0):
    (path,) = folder.glob(f"classes-{rank}-*.pt")
    return torch.load(path, weights_only=True)


def assert_same(first, second):
    for name, value in checkpoint(first)["network"].items():
        assert torch.equal(value, checkpoint(second)["network"][name]), name
    assert log_of(first)[-1] == log_of(second)[-1]
    assert torch.equal(classes(first)["softmax"]["hyperplanes"], classes(second)["softmax"]["hyperplanes"])


def log_of(folder):
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Sixty-four faces of eight people, so 4 steps an epoch and 16 in all; two people are held out."""
    folder = tmp_path_factory.mktemp("teacher")
    trainer = new_trainer(folder)
    before = trainer.separation()
    trainer.train()
    return trainer, folder, before


class TestTraining:
    def test_it_tells_people_apart_whom_it_has_never_seen(self, trained):
        trainer, folder, before = trained
        rows = log_of(folder)
        assert [int(row["step"]) for row in rows] == [3, 6, 9, 12, 15, 16]
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
        assert float(rows[-1]["held_out_separation"]) == pytest.approx(trainer.separation(), rel=1e-4)
        assert trainer.separation() > before

    def test_what_it_leaves_is_the_networks_state_and_one_checkpoint(self, trained):
        trainer, folder, _ = trained
        assert sorted(path.name for path in folder.iterdir()) == [
            "backbone.pt", "checkpoint.pt", "classes-0-16.pt", "log.csv", "tensorboard",
        ]  # fmt: skip
        state = torch.load(folder / "backbone.pt", weights_only=True)
        assert all(torch.equal(value, state[name]) for name, value in trainer.network.state_dict().items())

    def test_an_interrupted_run_ends_with_the_very_same_weights(self, trained, tmp_path):
        new_trainer(tmp_path).train(until=7)
        resumed = new_trainer(tmp_path)
        assert resumed.resume()
        assert resumed.step == 7
        resumed.train()
        assert_same(tmp_path, trained[1])

    def test_a_kill_between_the_files_of_a_checkpoint_leaves_the_one_before(self, trained, tmp_path, monkeypatch):
        killed = new_trainer(tmp_path)
        killed.train(until=3)
        monkeypatch.setattr(type(killed._peers), "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            killed.train(until=6)
        monkeypatch.undo()
        assert len(list(tmp_path.glob("classes-0-*.pt"))) == 2
        resumed = new_trainer(tmp_path)
        assert resumed.resume()
        assert resumed.step == 3
        resumed.train()
        assert_same(tmp_path, trained[1])

    def test_without_a_checkpoint_there_is_nothing_to_resume(self, tmp_path):
        assert not new_trainer(tmp_path).resume()

    @pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"held_out": 0.3}])
    def test_a_checkpoint_of_another_recipe_is_refused(self, trained, change):
        with pytest.raises(CheckpointError, match="another recipe"):
            new_trainer(trained[1], RECIPE.model_copy(update=change)).resume()

    def test_too_few_faces_for_a_batch_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="do not make a batch of 80"):
            new_trainer(tmp_path, RECIPE.model_copy(update={"batch": 80}))


def test_two_processes_share_the_people_and_resume(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.unit.model_training.teacher_worker", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"})
    loss, faces, hyperplanes = softmax_of(0, 1)
    shares = [torch.load(tmp_path / f"softmax-{rank}.pt", weights_only=True) for rank in range(2)]
    for rank, share in enumerate(shares):
        assert share[0].item() == pytest.approx(loss.item(), rel=1e-5)
        # DDP will take the mean of both processes' gradients.
        torch.testing.assert_close(share[1], 2 * faces[rank::2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([share[2] for share in shares]), hyperplanes, rtol=1e-4, atol=1e-4)

    for rank in range(2):
        whole, halved = (classes(tmp_path / run, rank)["softmax"]["hyperplanes"] for run in ("whole", "halved"))
        assert whole.shape == (4, 8)
        assert torch.equal(whole, halved)
    rows = log_of(tmp_path / "whole")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    networks = [checkpoint(tmp_path / run)["network"] for run in ("whole", "halved")]
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    with pytest.raises(CheckpointError, match="more processes"):
        new_trainer(tmp_path / "whole").resume()


CROPS = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)


class TestPeople:
    def test_the_same_name_in_two_folders_is_two_people(self):
        parts = [AlignedFaces(CROPS[:3], ["a/1", "b/1", "a/2"]), AlignedFaces(CROPS[3:], ["a/1", "c/1", "c/2"])]
        people = PreparedPeople(parts)
        assert people.classes.tolist() == [0, 1, 0, 2, 3, 3]
        np.testing.assert_array_equal(people.crops(np.array([5, 0, 3])), CROPS[[5, 0, 3]])

    def test_records_are_decoded_as_they_are_wanted(self, tmp_path):
        records = [
            (key, image_record([label], cv2.imencode(".png", CROPS[key])[1].tobytes()))
            for key, label in ((1, 7.0), (2, 9.0), (3, 7.0))
        ]
        people = RecordedPeople(RecordFile(write_records(tmp_path / "train.rec", records)))
        assert people.classes.tolist() == [0, 1, 0]
        np.testing.assert_array_equal(people.crops(np.array([2, 0])), CROPS[[3, 1]])

    def test_a_record_without_a_face_is_an_error_that_names_it(self, tmp_path):
        people = RecordedPeople(
            RecordFile(write_records(tmp_path / "a.rec", [(4, image_record([0.0], b"no picture"))]))
        )
        with pytest.raises(DataError, match=r"record 4 of a\.rec"):
            people.crops(np.array([0]))

    def test_all_faces_of_a_share_of_the_people_are_held_out(self):
        people = np.repeat(np.arange(20), 3)
        held_out = held_out_people(people, 0.25, seed=1)
        assert held_out.sum() == 15
        assert len(set(people[held_out])) == 5
        assert not held_out_people(people, 0.0, seed=1).any()

    def test_every_process_has_its_share_of_the_same_order(self):
        rows = np.arange(100, 150)
        whole = list(shuffled(rows, 8, epoch=2, seed=1))
        assert len(whole) == 6
        assert len(set(np.concatenate(whole))) == 48
        shares = [list(shuffled(rows, 8, 2, 1, rank=rank, peers=2)) for rank in range(2)]
        for batch, first, second in zip(whole, *shares, strict=True):
            assert batch[0::2].tolist() == first.tolist() and batch[1::2].tolist() == second.tolist()
        assert [b.tolist() for b in shuffled(rows, 8, 2, 1, skip=4)] == [b.tolist() for b in whole[4:]]

    def test_a_view_follows_from_seed_epoch_and_row(self):
        people = PreparedPeople([AlignedFaces(CROPS, [f"a/{i}" for i in range(6)])])
        rows = np.arange(6)
        first = drawn_views(people, rows, 0.5, seed=1, epoch=0)
        np.testing.assert_array_equal(drawn_views(people, rows[2:4], 0.5, 1, 0), first[2:4])
        assert not np.array_equal(drawn_views(people, rows, 0.5, 1, 1), first)

    def test_faces_that_are_not_augmented_are_at_most_mirrored(self):
        people = PreparedPeople([AlignedFaces(CROPS, [f"a/{i}" for i in range(6)])])
        for view, crop in zip(drawn_views(people, np.arange(6), 0.0, 3, 0), CROPS, strict=True):
            assert np.array_equal(view, crop) or np.array_equal(view, crop[:, ::-1])


def test_separation_is_the_distance_of_the_means_in_deviations():
    # Cosines of mates 1 and 0.8, of impostors 0, 0, 0.6, 0.8 (signs aside).
    faces = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    mates, impostors = torch.tensor([1.0, 0.8]), torch.tensor([0.0, 0.6, 0.0, 0.6])
    wanted = (mates.mean() - impostors.mean()) / ((mates.var() + impostors.var()) / 2).sqrt()
    assert separation_of(faces, torch.tensor([0, 0, 1, 1])) == pytest.approx(wanted.item(), rel=1e-5)


class TestCommand:
    RECIPE = """
name = "tiny"
backbone = "mobilenetv2"
dimension = 8
epochs = 1
batch = 2
held_out = 0.0
compile = false
"""

    def run(self, folder, *arguments):
        (folder / "recipe.toml").write_text(self.RECIPE)
        base = ["train-teacher", "--recipe", folder / "recipe.toml", "--run", folder / "run", *arguments]
        return CliRunner().invoke(app, list(map(str, base)), env={"COLUMNS": "200"})

    def test_a_prepared_folder_trains_one(self, tmp_path):
        AlignedFaces(CROPS[:4], ["a/1", "a/2", "b/1", "b/2"]).save(tmp_path / "faces", range(4))
        result = self.run(tmp_path, "--faces", tmp_path / "faces")
        assert result.exit_code == 0, result.output
        assert "backbone.pt: 2 steps, no held-out people" in result.output.replace("\n", "")
        state = torch.load(tmp_path / "run" / "backbone.pt", weights_only=True)
        make_backbone("mobilenetv2", 8).load_state_dict(state)

    def test_without_faces_there_is_nothing_to_train_on(self, tmp_path):
        result = self.run(tmp_path)
        assert result.exit_code == 2
        assert "--faces or --records" in result.output.replace("\n", " ")
