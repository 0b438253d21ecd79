"""Labels, canvases, losses and the loop, on pictures small enough for a unit test."""

import json

import cv2
import numpy as np
import pytest
import torch

from model_training.data.faces import DataError
from model_training.detector import evaluation
from model_training.detector.bank import CanvasBank, draw_canvases
from model_training.detector.canvases import MAX_ANSWERS, MAX_ROWS, CanvasPainter
from model_training.detector.export import export_detector, write_manifest
from model_training.detector.geometry import Kind
from model_training.detector.labels import (
    FACELESS,
    LabelledPicture,
    is_held_out,
    label_pictures,
    load_labels,
    pictures_in_pairs,
    teacher_faces,
)
from model_training.detector.losses import aligned_iou, eiou_loss, quality_focal_loss
from model_training.detector.network import FaceNetwork
from model_training.detector.optimiser import OrthogonalMomentum, orthogonalised
from model_training.detector.patience import CellTeacher, PatientPainter, retaught
from model_training.detector.recipe import BankRecipe, DetectorRecipe
from model_training.detector.restart import RestartError
from model_training.detector.training import DetectorTrainer, rate_factor
from model_training.training.trainer import CheckpointError
from service.domain import Box, Detection
from service.vision.detection import YuNetDetector

RECIPE = DetectorRecipe(
    name="tiny",
    width=8,
    small=BankRecipe(side_px=64, count=8, batch=4),
    large=BankRecipe(side_px=96, count=4, batch=2),
    large_every=3,
    shares={"drawn": 1.0},
    steps=6,
    warmup_steps=2,
    checkpoint_every=3,
    bf16=False,
)


def face(left, top, side, score):
    points = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]]) * side + [left, top]
    return np.array([left, top, left + side, top + side, *points.reshape(-1), score], dtype=np.float32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six drawings of a face: an oval with three dots."""
    folder, made = tmp_path_factory.mktemp("pictures"), []
    for index in range(6):
        row = face(20 + index, 15, 40 + 2 * index, 0.9)
        image = np.full((90, 90, 3), 40 * index, dtype=np.uint8)
        centre = (int(row[[0, 2]].mean()), int(row[[1, 3]].mean()))
        cv2.ellipse(image, centre, (20 + index, 20 + index), 0, 0, 360, (150, 180, 220), -1)
        for x, y in row[4:10].reshape(3, 2):
            cv2.circle(image, (int(x), int(y)), 3, (30, 30, 30), -1)
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), image)
        made.append(LabelledPicture(path=path, source="drawn", faces=row[None], held_out=False))
    return made


@pytest.fixture(scope="module")
def banks(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks")
    for name, recipe in (("small", RECIPE.small), ("large", RECIPE.large)):
        painter = CanvasPainter(pictures, RECIPE.shares, recipe.side_px)
        draw_canvases(painter, folder / name, count=recipe.count, seed=1, threads=1)
    return folder


def trainer(banks, folder, recipe=RECIPE):
    small, large = CanvasBank(banks / "small"), CanvasBank(banks / "large")
    return DetectorTrainer(recipe, small, large, small, folder)


def test_pairs_name_pictures_not_people(tmp_path):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("10\t300\nAda_L\t1\t4\nAda_L\t2\tBob_M\t13\n")
    assert pictures_in_pairs(pairs) == {
        "Ada_L/Ada_L_0001.jpg",
        "Ada_L/Ada_L_0004.jpg",
        "Ada_L/Ada_L_0002.jpg",
        "Bob_M/Bob_M_0013.jpg",
    }


def test_the_held_out_share_is_what_was_asked_for():
    taken = [is_held_out(f"folder/{index}.jpg", 0.03) for index in range(4000)]
    assert 0.02 < np.mean(taken) < 0.04
    assert taken == [is_held_out(f"folder/{index}.jpg", 0.03) for index in range(4000)]


class ScriptedTeacher:
    """Sees one face at either size, and a second one only in the enlarged picture."""

    def detect(self, image):
        scale = image.shape[1] / 100
        rows = [face(10, 10, 40, 0.9), *([face(70, 70, 12, 0.7)] if scale == 2 else [])]
        shift = (scale - 1) / 2
        return [
            Detection(
                box=Box(
                    row[0] * scale + shift, row[1] * scale + shift, (row[2] - row[0]) * scale, (row[3] - row[1]) * scale
                ),
                landmarks=row[4:14].reshape(5, 2) * scale + shift,
                score=float(row[14]),
            )
            for row in rows
        ]


def test_labels_join_both_passes_and_survive_the_disk(tmp_path):
    faces = teacher_faces(ScriptedTeacher(), np.zeros((100, 100, 3), dtype=np.uint8))
    np.testing.assert_allclose(faces, np.stack([face(10, 10, 40, 0.9), face(70, 70, 12, 0.7)]), atol=1e-4)

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 100, 3), dtype=np.uint8))
    (tmp_path / "broken.png").write_text("no picture")
    files = {"some": [tmp_path / "a.png", tmp_path / "broken.png"]}
    wall = [tmp_path / "wall.png"]
    assert label_pictures(files, ScriptedTeacher(), tmp_path / "labels.json", faceless=wall, threads=1) == 2
    stored, background = load_labels(tmp_path / "labels.json")
    assert background.source == FACELESS
    assert background.faces.shape == (0, 15)
    assert stored.source == "some"
    np.testing.assert_allclose(stored.faces, faces, atol=1e-3)
    with pytest.raises(DataError):
        load_labels(tmp_path / "nothing.json")


def test_canvases_are_drawn_alike_from_the_same_seed(pictures, tmp_path):
    cv2.imwrite(str(tmp_path / "wall.png"), np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    wall = LabelledPicture(tmp_path / "wall.png", FACELESS, np.zeros((0, 15), dtype=np.float32), held_out=False)
    painter = CanvasPainter([*pictures, wall], RECIPE.shares, 96)
    kinds = set()
    for seed in range(25):
        canvas, rows, answers = painter.draw(np.random.default_rng(seed))
        again, rows_again, _ = painter.draw(np.random.default_rng(seed))
        assert not answers.any()
        assert canvas.shape == (96, 96, 3)
        assert rows.shape == (MAX_ROWS, 15)
        assert np.array_equal(canvas, again)
        assert np.array_equal(rows, rows_again)
        assert np.isfinite(rows).all()
        faces = rows[rows[:, 14] == Kind.FACE]
        assert (faces[:, 4] < faces[:, 6]).all(), "the image-left eye is on the left"
        kinds.update(rows[:, 14].astype(int).tolist())
    assert kinds >= {Kind.EMPTY, Kind.FACE}


def test_an_interrupted_drawing_goes_on_and_another_recipe_is_refused(pictures, banks, tmp_path):
    painter = CanvasPainter(pictures, RECIPE.shares, 64)
    draw_canvases(painter, tmp_path, count=8, seed=1, threads=2)
    whole = CanvasBank(tmp_path).canvases.copy()
    assert np.array_equal(whole, CanvasBank(banks / "small").canvases)
    state = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps({**state, "drawn": 5}))
    with pytest.raises(DataError):
        CanvasBank(tmp_path)
    draw_canvases(painter, tmp_path, count=8, seed=1, threads=1)
    assert np.array_equal(CanvasBank(tmp_path).canvases, whole)
    with pytest.raises(DataError):
        draw_canvases(painter, tmp_path, count=8, seed=2)


class ScriptedCells:
    """A cell teacher that says the same of every picture."""

    def __init__(self, cells, answers):
        self.scores, self.places = np.zeros(200, dtype=np.float32), np.zeros((200, 14), dtype=np.float32)
        for cell, answer in zip(cells, answers, strict=True):
            self.scores[cell], self.places[cell] = answer[14], answer[:14]

    def answers(self, image):
        return self.scores, self.places


def labelled_rows(*faces):
    rows = np.zeros((MAX_ROWS, 15), dtype=np.float32)
    rows[: len(faces)] = np.stack(faces)
    return rows


def test_a_patient_teacher_speaks_of_the_faces_it_sees_and_leaves_the_rest():
    seen, missed, ignored = face(10, 10, 40, Kind.FACE), face(100, 100, 40, Kind.FACE), face(12, 11, 40, Kind.IGNORE)
    doubted = face(60, 10, 30, Kind.FACE)
    cells = [3, 4, 5, 60, 70, 80]
    said = [face(13, 9, 42, 0.4), face(12, 9, 42, 0.8), face(11, 9, 42, 0.1), face(60, 11, 30, 0.2)]
    said += [face(30, 30, 42, 0.9), face(12, 10, 41, 0.3)]
    teacher = ScriptedCells(cells, said)
    rows = labelled_rows(seen, missed, ignored, doubted)
    taught, answers = retaught(rows, teacher.scores, teacher.places)
    # One face is seen by three cells that matter; a fourth hardly sees it, and a fifth sees something else.
    assert taught[:, 14].tolist()[:4] == [Kind.TAUGHT, Kind.FACE, Kind.IGNORE, Kind.FACE]
    np.testing.assert_array_equal(taught[:, :14], rows[:, :14])
    assert answers[:4, 14].tolist() == [3, 4, 80, 0]
    np.testing.assert_allclose(answers[:4, 15], [0.5, 1.0, 0.375, 0.0])
    np.testing.assert_array_equal(answers[:3, :14], np.stack([said[1]] * 3)[:, :14])
    assert not answers[3:].any()


def test_a_face_whose_answers_do_not_fit_keeps_its_label():
    rows = labelled_rows(face(10, 10, 40, Kind.FACE))
    scores = np.full(MAX_ANSWERS + 1, 0.9, dtype=np.float32)
    taught, answers = retaught(rows, scores, np.repeat(face(10, 10, 40, 0)[None, :14], len(scores), axis=0))
    np.testing.assert_array_equal(taught, rows)
    assert not answers.any()


def test_a_cell_teacher_says_what_the_detector_reports(exported_detector):
    image = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8),
        (160, 160),
        interpolation=cv2.INTER_CUBIC,
    )
    scores, places = CellTeacher(exported_detector).answers(image)
    assert scores.shape == (400 + 100 + 25,)
    detector = YuNetDetector(exported_detector, score_threshold=float(scores.max()) - 1e-4)
    best, place = detector.detect(image)[0], places[scores.argmax()]
    assert best.score == pytest.approx(scores.max(), abs=1e-4)
    np.testing.assert_allclose(best.landmarks.reshape(-1), place[4:14], atol=0.1)
    np.testing.assert_allclose([best.box.x, best.box.y], place[:2], atol=0.1)


@pytest.fixture(scope="module")
def exported_detector(tmp_path_factory):
    torch.manual_seed(0)
    network = FaceNetwork(8)
    with torch.no_grad():
        # Untrained boxes are thousands of pixels wide.
        for name in ("bbox", "kps"):
            for head in network.heads[name]:
                head[1].weight *= 0.01
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    export_detector(network, path)
    return path


def test_a_patient_bank_is_labelled_after_mirroring_and_never_mirrored_again(pictures, tmp_path):
    painter = CanvasPainter(pictures, RECIPE.shares, 64)
    answer = face(12, 12, 40, 0.9)
    teacher = ScriptedCells([7], [answer])
    draw_canvases(PatientPainter(painter, teacher), tmp_path, count=24, seed=1, threads=1)
    bank = CanvasBank(tmp_path)
    assert bank.patient
    taught = bank.rows[..., 14] == Kind.TAUGHT
    assert taught.any()
    np.testing.assert_array_equal(taught.any(axis=1), bank.answers[:, 0, 15] == 1)
    np.testing.assert_array_equal(bank.answers[taught.any(axis=1)][:, 0, :15], [[*answer[:14], 7]] * taught.sum())
    for epoch in range(3):
        batch = bank.batch(epoch, 24, seed=0)
        for drawn, stored in zip(batch, (bank.canvases, bank.rows, bank.answers), strict=True):
            np.testing.assert_array_equal(drawn, stored)
    plain = [painter.draw(np.random.default_rng([1, index])).pixels for index in range(24)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(plain, bank.canvases, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(plain, bank.canvases, strict=True)]
    assert any(mirrored)
    assert any(same)
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    with pytest.raises(DataError):
        draw_canvases(painter, tmp_path, count=24, seed=1, threads=1)


def test_loss_values():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert eiou_loss(box, box).item() == pytest.approx(0, abs=1e-6)
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    assert aligned_iou(box, half).item() == pytest.approx(0.5)
    # 1 - 0.5, centres 2.5 apart in a frame of diagonal squared 200, heights 5 apart in a frame of 10.
    assert eiou_loss(half, box).item() == pytest.approx(0.5 + 6.25 / 200 + 0.25, abs=1e-5)
    assert quality_focal_loss(torch.tensor([0.0]), torch.tensor([0.5])).item() == 0
    assert quality_focal_loss(torch.tensor([0.0]), torch.tensor([0.0])).item() == pytest.approx(0.25 * np.log(2))


def test_the_rate_warms_up_and_comes_down():
    shares = [rate_factor(step, RECIPE) for step in range(RECIPE.steps + 1)]
    assert shares[0] == pytest.approx(1 / 2)
    assert max(shares) == 1
    assert shares[-1] == pytest.approx(0.01)


def test_orthogonal_steps_move_alike_in_every_direction():
    torch.manual_seed(0)
    for shape in ((24, 24), (10, 64), (64, 16)):
        skewed = torch.randn(*shape) @ torch.diag(torch.logspace(0, -1, shape[1]))
        strengths = torch.linalg.svdvals(orthogonalised(skewed))
        assert strengths.max() < 1.3
        assert strengths.median() > 0.6
    kernel = torch.nn.Parameter(torch.zeros(8, 8, 1, 1))
    kernel.grad = torch.eye(8).view(8, 8, 1, 1) * 1e-4
    OrthogonalMomentum([kernel], lr=0.1).step()
    moved = -kernel.detach()[:, :, 0, 0]
    assert moved.diagonal().mean() == pytest.approx(0.1, rel=0.35)
    assert (moved - torch.diag(moved.diagonal())).abs().max() < 1e-4


def test_the_loss_goes_down_on_what_it_sees(banks, tmp_path):
    recipe = RECIPE.model_copy(update={"steps": 40, "large_every": 40, "checkpoint_every": 40, "width": 16})
    run = trainer(banks, tmp_path, recipe)
    before = run.held_out_terms()
    run.train()
    after = run.held_out_terms()
    assert after[:3].sum() < 0.7 * before[:3].sum()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_resumed_run_ends_exactly_where_an_unbroken_one_does(banks, tmp_path):
    whole = trainer(banks, tmp_path / "whole")
    assert not whole.resume()
    whole.train()
    trainer(banks, tmp_path / "broken").train(until=4)
    second = trainer(banks, tmp_path / "broken")
    assert second.resume()
    assert second.step == 4
    second.train()
    expected, actual = whole.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())

    other = trainer(banks, tmp_path / "whole", RECIPE.model_copy(update={"seed": 2}))
    with pytest.raises(CheckpointError):
        other.resume()


def test_a_second_stage_starts_from_the_weights_of_the_first(banks, tmp_path):
    first = trainer(banks, tmp_path / "first")
    first.train(until=3)
    second = trainer(banks, tmp_path / "second", RECIPE.model_copy(update={"seed": 5, "steps": 3}))
    second.start_from(first.checkpoint_path)
    assert second.step == 0
    actual = second.network.state_dict()
    assert all(torch.equal(value, actual[name]) for name, value in first.network.state_dict().items())
    second.train()
    assert torch.load(second.checkpoint_path, weights_only=True)["earlier"]["steps"] == 3


def test_a_stage_starts_from_an_exported_detector(banks, tmp_path):
    first = trainer(banks, tmp_path / "first")
    first.train()
    export_detector(first.network, tmp_path / "detector.onnx")
    manifest = {"steps": 6, "minutes": 0.5, "earlier_stages": {"steps": 10, "minutes": 1.0}}
    write_manifest(tmp_path / "detector.onnx", data=["drawn"], training=manifest, metrics={})
    second = trainer(banks, tmp_path / "second")
    second.start_from(tmp_path / "detector.onnx")
    batch = CanvasBank(banks / "small").batch(0, RECIPE.small.count, RECIPE.seed)
    pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float()
    first.network.eval()
    with torch.no_grad():
        expected, answer = first.network(pixels), second.network(pixels)
        # In training mode the norms use the batch's own statistics, and those are what they were settled on.
        trained = second.network.train()(pixels)
    for head, values in expected.items():
        torch.testing.assert_close(answer[head], values, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(trained[head], values, rtol=2e-2, atol=2e-2)
    second.train()
    assert torch.load(second.checkpoint_path, weights_only=True)["earlier"] == {"steps": 16.0, "seconds": 90.0}

    other = trainer(banks, tmp_path / "other", RECIPE.model_copy(update={"width": 16}))
    with pytest.raises(RestartError):
        other.start_from(tmp_path / "detector.onnx")


class SquareTeacher:
    """Finds a bright square wherever it is."""

    def detect(self, image):
        rows, columns = np.nonzero(image[:, :, 0] > 128)
        row = face(columns.min(), rows.min(), float(np.ptp(columns)), 0.9)
        return [Detection(Box(row[0], row[1], row[2] - row[0], row[3] - row[1]), row[4:14].reshape(5, 2), 0.9)]


def test_settled_landmarks_come_back_to_the_plain_picture():
    image = np.zeros((90, 80, 3), dtype=np.uint8)
    image[20:61, 10:51] = 255
    expected = face(10, 20, 40, 0.9)
    settled = evaluation.settled_landmarks(SquareTeacher(), image, expected)
    np.testing.assert_allclose(settled, expected[4:14].reshape(5, 2), atol=1e-3)


def test_comparison_with_the_teacher():
    expected = np.stack([face(10, 10, 40, 0.9), face(70, 70, 20, 0.8), face(5, 80, 15, 0.4)])
    found = np.stack([face(11, 10, 40, 0.9), face(5, 80, 15, 0.7), face(60, 0, 20, 0.7)])
    answer = evaluation.compare_faces(found, expected)
    assert answer is not None
    assert answer.main_iou == pytest.approx(39 / 41, abs=1e-3)
    # One pixel off, eyes 16 pixels apart.
    assert answer.landmark_error == pytest.approx(1 / 16, abs=1e-4)
    assert answer.found.tolist() == [True, False]
    assert answer.false_alarms == 1, "what the teacher half believes is no false alarm"
    assert answer.settled_error == answer.landmark_error
    assert answer.teacher_settled_error == 0
    settled = expected[0, 4:14].reshape(5, 2) + np.array([1, 0])
    against = evaluation.compare_faces(found, expected, settled)
    assert against.settled_error == pytest.approx(0, abs=1e-4)
    assert against.teacher_settled_error == pytest.approx(1 / 16, abs=1e-4)
    nothing = evaluation.compare_faces(found[:0], expected)
    figures = evaluation.summarise([answer, nothing])
    assert figures.main_face_found == 0.5
    assert figures.recall == 0.25
    assert evaluation.compare_faces(found, expected[2:]) is None
    with pytest.raises(DataError):
        evaluation.summarise([])
