"""Margin softmax and adaptive centres against values worked out in NumPy."""

import math

import numpy as np
import pytest
import torch

from model_training.objectives.margins import AdaptiveCentres, MarginSoftmax, with_margin

CLASSES = torch.tensor([[3.0, 0.0], [0.0, 0.2], [-1.0, -1.0]])
FACES = torch.tensor([[2.0, 2.0], [0.3, 0.4], [0.0, -5.0], [-1.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 0])


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected_loss(faces, classes, labels, moved, scale):
    cosines = unit(faces) @ unit(classes).T
    total = 0.0
    for row, label in zip(cosines, labels, strict=True):
        logits = row.copy()
        logits[label] = moved(row[label])
        logits *= scale
        total -= logits[label] - np.log(np.exp(logits).sum())
    return total / len(labels)


def arcface(margin):
    def moved(cosine):
        angle = math.acos(cosine)
        return math.cos(angle + margin) if angle + margin < math.pi else cosine - margin * math.sin(margin)

    return moved


class TestMargins:
    @pytest.mark.parametrize(
        ("kind", "moved"), [("arcface", arcface(0.5)), ("cosface", lambda cosine: cosine - 0.35)], ids=["arc", "cos"]
    )
    def test_golden_value(self, kind, moved):
        """One of the faces is opposite to its class, where ArcFace's angle passes pi."""
        loss = MarginSoftmax(3, 2, kind, scale=4.0, inherited=CLASSES)(FACES, LABELS)
        assert loss.item() == pytest.approx(expected_loss(FACES, CLASSES, LABELS.tolist(), moved, 4.0), rel=1e-5)

    def test_other_classes_keep_their_cosines(self):
        cosines = torch.tensor([[0.1, 0.2, 0.3]])
        moved = with_margin(cosines, torch.tensor([1]), "arcface", 0.5)
        assert moved[0, [0, 2]].tolist() == cosines[0, [0, 2]].tolist()
        assert moved[0, 1].item() == pytest.approx(math.cos(math.acos(0.2) + 0.5), abs=1e-6)

    @pytest.mark.parametrize("kind", ["arcface", "cosface"])
    def test_the_nearer_the_better_at_every_angle(self, kind):
        own = torch.linspace(-1, 1, 401)[:, None]
        moved = with_margin(own, torch.zeros(401, dtype=torch.long), kind, 0.5)[:, 0]
        assert (moved.diff() > 0).all()

    def test_a_face_on_its_hyperplane_has_a_finite_gradient(self):
        face = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
        MarginSoftmax(2, 2, inherited=torch.eye(2))(face, torch.tensor([0, 0])).backward()
        assert torch.isfinite(face.grad).all()


class TestHyperplanes:
    def test_inherited_ones_are_frozen_and_kept_in_checkpoints(self):
        loss = MarginSoftmax(3, 2, inherited=CLASSES)
        assert list(loss.parameters()) == []
        assert torch.equal(loss.state_dict()["hyperplanes"], CLASSES)

    def test_learned_ones_move_towards_their_faces(self):
        torch.manual_seed(0)
        loss = MarginSoftmax(3, 2, "cosface", scale=8.0)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
        # A third of a circle apart, so that the best hyperplanes are the faces themselves.
        faces, labels = torch.tensor([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]]), torch.tensor([0, 1, 2])
        for _ in range(200):
            optimizer.zero_grad()
            loss(faces, labels).backward()
            optimizer.step()
        cosines = torch.nn.functional.cosine_similarity(loss.hyperplanes, faces)
        assert (cosines > 0.99).all()

    def test_another_shape_is_refused(self):
        with pytest.raises(ValueError, match="4 classes of 2 values"):
            MarginSoftmax(4, 2, inherited=CLASSES)


class TestAdaptiveCentres:
    def test_centres_follow_the_teacher_as_the_paper_says(self):
        loss = AdaptiveCentres(2, 2)
        loss.centres.copy_(torch.tensor([[0.6, 0.8], [5.0, 5.0]]))
        teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.5]])
        loss(teacher, student, torch.tensor([0]))
        # cos(s, t) = 1 / sqrt(2), cos(c, t) = 0.6.
        momentum = 0.6 / math.sqrt(2)
        wanted = [momentum * 0.6 + (1 - momentum), momentum * 0.8]
        assert loss.centres[0].tolist() == pytest.approx(wanted, rel=1e-5)
        assert loss.centres[1].tolist() == [5.0, 5.0]

    def test_a_student_that_looks_away_takes_the_face_itself_as_centre(self):
        loss = AdaptiveCentres(1, 2)
        loss.centres.copy_(torch.tensor([[1.0, 0.0]]))
        loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([0]))
        assert loss.centres[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2, abs=1e-5)

    def test_several_faces_of_a_class_ask_together(self):
        together, alone = AdaptiveCentres(1, 2), []
        start = torch.tensor([[0.8, 0.6]])
        teacher, student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        for row in range(2):
            one = AdaptiveCentres(1, 2)
            one.centres.copy_(start)
            one(teacher[row : row + 1], student[row : row + 1], torch.tensor([0]))
            alone.append(one.centres)
        together.centres.copy_(start)
        together(teacher, student, torch.tensor([0, 0]))
        torch.testing.assert_close(together.centres, (alone[0] + alone[1]) / 2)

    def test_the_loss_is_a_margin_softmax_to_the_moved_centres(self):
        loss = AdaptiveCentres(3, 2, "cosface", scale=4.0)
        loss.centres.copy_(CLASSES)
        got = loss(FACES, FACES.flip(0), LABELS).item()
        wanted = expected_loss(FACES.flip(0), loss.centres, LABELS.tolist(), lambda cosine: cosine - 0.35, 4.0)
        assert got == pytest.approx(wanted, rel=1e-5)

    def test_only_the_student_gets_a_gradient_and_evaluation_moves_nothing(self):
        loss = AdaptiveCentres(3, 2)
        teacher, student = FACES.clone().requires_grad_(), FACES.flip(0).clone().requires_grad_()
        loss(teacher, student, LABELS).backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0
        before = loss.eval().centres.clone()
        loss(teacher, student, LABELS)
        assert torch.equal(loss.centres, before)
