"""The mask classifier's training: what is held out, what is drawn, and the way to a file that is served."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from typer.testing import CliRunner

from model_training.cli import app
from model_training.data.faces import AlignedFaces, DataError
from model_training.mask import training
from model_training.mask.collections import alike_groups, held_out_sources, split
from model_training.mask.evaluation import error_rates
from model_training.mask.examples import ExamplePainter, framed
from model_training.mask.export import export_mask
from model_training.mask.network import MaskNetwork, MaskProbability
from model_training.mask.occluders import with_mask, with_something_else
from model_training.mask.recipe import MaskRecipe
from model_training.shipping.export import ParityError
from service.contract import CROP_SIDE_PX, align, read_manifest
from service.vision.attributes.mask import OnnxMaskNetwork, mask_input
from service.vision.detection import YuNetDetector
from tests.unit.vision.common import DETECTOR

RECIPE = MaskRecipe(name="tiny", channels=(4, 4, 6, 6, 8), steps=120, batch=16, warmup_steps=5, held_out=0.25, seed=3)


def some_crops(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def unit_rows(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def astronaut():
    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    return align(image, YuNetDetector(DETECTOR).detect(image)[0].landmarks)


def folder_of(path: Path, crops):
    path.mkdir(parents=True)
    np.save(path / "crops.npy", crops)
    (path / "sources.json").write_text(json.dumps([f"{index}.jpg" for index in range(len(crops))]))
    return path


class TestHeldOut:
    def test_alike_is_whoever_is_near_by_steps(self):
        chain = [[1, 0, 0], [0.95, 0.31, 0], [0.8, 0.6, 0]]
        rows = unit_rows([*chain, [0, 0, 1], [0, 0, 1], [-1, 0, 0]])
        groups = alike_groups(rows, 0.9)
        assert groups.tolist() == [groups[0]] * 3 + [groups[3]] * 2 + [groups[5]]
        assert len(set(groups.tolist())) == 3

    def test_pictures_that_look_alike_stay_together_across_folders(self, tmp_path):
        folders = [(folder_of(tmp_path / name, some_crops(40)), masked) for name, masked in (("a", True), ("b", False))]
        # Picture i of one folder is picture i of the other.
        embeddings = unit_rows(np.random.default_rng(0).normal(size=(40, 64)))
        one, other = split(folders, [embeddings, embeddings], held_out=0.25, alike=0.9, seed=1)
        np.testing.assert_array_equal(one.held_out, other.held_out)
        assert 0.15 < one.held_out.mean() <= 0.25
        assert (one.masked, other.masked) == (True, False)
        assert len(one.learned()) + len(one.kept()) == 40
        np.testing.assert_array_equal(one.kept(), one.faces.crops[one.held_out])
        assert held_out_sources([one])["a"] == [f"{index}.jpg" for index in np.flatnonzero(one.held_out)]

    def test_a_folder_that_is_none_is_refused(self, tmp_path):
        with pytest.raises(DataError):
            split([(tmp_path, True)], [np.eye(2, dtype=np.float32)], held_out=0.2, alike=0.9, seed=1)


class TestOccluders:
    def test_a_mask_covers_the_mouth_and_leaves_eyes_and_forehead(self, astronaut):
        rng = np.random.default_rng(0)
        drawn = np.stack([with_mask(astronaut, rng) for _ in range(60)]).astype(int)
        changed = np.abs(drawn - astronaut).max(axis=3) > 12
        assert drawn.shape[1:] == astronaut.shape
        assert changed[:, 84:98, 44:68].mean() > 0.9
        assert changed[:, :44].mean() < 0.02
        assert not (drawn[0] == drawn[1]).all()

    def test_anything_else_leaves_most_of_nose_and_mouth(self, astronaut):
        rng = np.random.default_rng(0)
        drawn = np.stack([with_something_else(astronaut, rng) for _ in range(200)]).astype(int)
        changed = np.abs(drawn - astronaut).max(axis=3) > 12
        assert changed.any(axis=(1, 2)).mean() > 0.8
        assert changed[:, 62:96, 40:72].mean(axis=(1, 2)).max() < 0.75
        assert changed[:, 62:96, 40:72].mean() < 0.2

    def test_chance_comes_from_the_generator_alone(self, astronaut):
        for draw in (with_mask, with_something_else, framed):
            once, again = (draw(astronaut, np.random.default_rng(9)) for _ in range(2))
            np.testing.assert_array_equal(once, again)

    def test_a_frame_is_black_outside_and_the_face_inside(self, astronaut):
        out = framed(astronaut, np.random.default_rng(2))
        kept = (out == astronaut).all(axis=2)
        assert (out[~kept] == 0).all()
        assert kept[40:80, 40:80].all()


class TestExamples:
    def test_half_are_masked_and_labels_tell_which(self):
        dark, bright = np.full((3, 112, 112, 3), 20, np.uint8), np.full((5, 112, 112, 3), 230, np.uint8)
        painter = ExamplePainter([bright], [dark], drawn=0.0, covered=0.0)
        crops, labels = painter.batch(64, np.random.default_rng(0))
        assert (crops.shape, crops.dtype, labels.dtype) == ((64, 112, 112, 3), np.uint8, np.float32)
        assert labels.mean() == 0.5
        middles = crops[:, 40:70, 40:70].mean(axis=(1, 2, 3))
        assert middles[labels == 1].min() > middles[labels == 0].max()

    def test_every_collection_has_its_share_whatever_its_size(self):
        large, small = np.full((90, 112, 112, 3), 30, np.uint8), np.full((2, 112, 112, 3), 220, np.uint8)
        painter = ExamplePainter([large], [large, small], drawn=0.0, covered=0.0)
        crops, labels = painter.batch(400, np.random.default_rng(0))
        assert (crops[labels == 0][:, 50:60, 50:60].mean(axis=(1, 2, 3)) > 120).mean() == pytest.approx(0.5, abs=0.1)


class TestNetwork:
    def test_what_is_shipped_answers_as_what_was_trained(self):
        torch.manual_seed(0)
        network = MaskNetwork(RECIPE.channels).train()
        pixels = torch.from_numpy(mask_input(some_crops(12)))
        for _ in range(3):
            # Moves the norms' statistics away from where they begin.
            network(pixels * 3 + 1)
        network.eval()
        with torch.no_grad():
            expected = torch.sigmoid(network(pixels))
            torch.testing.assert_close(MaskProbability(network)(pixels), expected, atol=1e-5, rtol=0)
        assert expected.shape == (12,)


@pytest.fixture(scope="module")
def painter(astronaut):
    bare = np.stack([np.roll(astronaut, shift, axis=1) for shift in range(-6, 7)])
    return ExamplePainter(
        [np.stack([with_mask(each, np.random.default_rng(5)) for each in bare])], [bare], drawn=0.5, covered=0.0
    )


class TestTraining:
    def test_the_loss_falls_and_a_run_can_be_repeated(self, painter, tmp_path):
        network = training.train(RECIPE, painter, tmp_path / "one")
        short = RECIPE.model_copy(update={"steps": 10})
        once, again = (training.train(short, painter, tmp_path / name).state_dict() for name in ("two", "three"))
        torch.testing.assert_close(once, again)
        crops, labels = painter.batch(64, np.random.default_rng(99))
        with torch.no_grad():
            logits = network(torch.from_numpy(mask_input(crops))).numpy()
        assert ((logits > 0) == (labels == 1)).mean() > 0.8

    def test_what_a_run_left_is_found_again(self, painter, tmp_path):
        recipe = RECIPE.model_copy(update={"steps": 60})
        network = training.train(recipe, painter, tmp_path)
        found = training.load(tmp_path)
        assert found.recipe == recipe
        torch.testing.assert_close(found.network.state_dict(), network.state_dict())
        assert (tmp_path / "log.csv").read_text().splitlines()[0] == "step,loss"
        assert (tmp_path / "log.csv").read_text().splitlines()[1].startswith("50,")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return MaskNetwork(RECIPE.channels).eval()


class TestExport:
    def test_the_service_loads_it(self, network, tmp_path):
        path = tmp_path / "mask.onnx"
        manifest = export_mask(network, RECIPE, path, data=["drawings"], training={"steps": 40})
        assert read_manifest(path) == manifest
        assert (manifest.role, manifest.name, manifest.data) == ("mask-classifier", "tiny", ["drawings"])
        crops = some_crops(70, seed=4)
        with torch.no_grad():
            expected = MaskProbability(network)(torch.from_numpy(mask_input(crops))).numpy()
        served = OnnxMaskNetwork(path)
        np.testing.assert_allclose(served.probabilities(crops), expected, atol=1e-5)
        assert b"site-packages" not in path.read_bytes()

    def test_one_that_answers_otherwise_is_not_left(self, network, tmp_path, monkeypatch):
        monkeypatch.setattr(OnnxMaskNetwork, "probabilities", lambda _, crops: np.zeros(len(crops), np.float32))
        with pytest.raises(ParityError):
            export_mask(network, RECIPE, tmp_path / "mask.onnx", data=["x"], training={})
        assert not list(tmp_path.iterdir())


def test_errors_are_counted_by_collection():
    class Brightness:
        def probabilities(self, crops):
            return crops.mean(axis=(1, 2, 3)) / 255

    dark, bright = np.zeros((3, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8), np.full((1, 112, 112, 3), 255, np.uint8)
    figures = error_rates(
        Brightness(), {"worn": np.concatenate([dark[:1], bright])}, {"bare": np.concatenate([dark, bright])}
    )
    assert figures == {
        "worn": {"faces": 2, "missed_percent": 50.0},
        "bare": {"faces": 4, "false_alarm_percent": 25.0},
    }


def test_the_commands_go_from_folders_to_a_described_model(astronaut, tmp_path):
    rng = np.random.default_rng(0)
    bare = np.stack([np.roll(astronaut, int(shift), axis=0) for shift in rng.integers(-3, 4, 24)])
    folders = {
        "bare": folder_of(tmp_path / "faces" / "bare", np.concatenate([bare, some_crops(40)])),
        "masked": folder_of(tmp_path / "faces" / "masked", np.concatenate([bare[:, ::-1], some_crops(40, seed=1)])),
    }
    recipe, run, out = tmp_path / "recipe.toml", tmp_path / "run", tmp_path / "models"
    recipe.write_text('name = "tiny"\nsteps = 2\nbatch = 4\nheld_out = 0.3\nalike = 1.0\n')
    out.mkdir()
    collections = ["--masked", str(folders["masked"]), "--bare", str(folders["bare"])]

    def invoke(*arguments):
        result = CliRunner().invoke(app, ["mask", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    invoke("train", "--recipe", recipe, "--run", run, *collections)
    invoke("export", "--run", run, "--out", out / "mask.onnx")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("1\n.\t1\t2\n")
    told = invoke(
        "evaluate", "--run", run, *collections, "--model", out / "mask.onnx",
        "--lfw", folders["bare"], "--pairs", pairs, "--record",
    )  # fmt: skip
    figures = json.loads(told)
    listed = json.loads((run / "split.json").read_text())["held_out"]
    assert figures["masked, held out"]["faces"] == len(listed["masked"]) > 0
    assert figures["bare, held out"]["faces"] == len(listed["bare"]) > 0
    # The pairs name nobody but the folder itself.
    assert figures["lfw, people of the pairs"]["faces"] == len(AlignedFaces.load(folders["bare"]).sources)
    assert read_manifest(out / "mask.onnx").metrics == figures
    assert "mask-classifier" in (out / "MODEL_CARD.md").read_text()
