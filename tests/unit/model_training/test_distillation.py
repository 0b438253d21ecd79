"""The student with its objective: what is compared, weighed and trained."""

import pytest
import torch
from torch import nn

from model_training.backbones.stages import Backbone, Stage
from model_training.objectives.distillation import Distillation, Lesson
from model_training.objectives.losses import angular_distillation
from model_training.objectives.margins import AdaptiveCentres, MarginSoftmax
from model_training.objectives.stage_matching import StageMatching, paired_stages

SMALL = (Stage("a", 2, 4), Stage("b", 3, 8))
LARGE = (Stage("x", 5, 2), Stage("y", 4, 4), Stage("z", 6, 8))
NOBODY = torch.tensor([-1])


class Swapping(Backbone):
    """Gives its two input values back in the other order."""

    dimension = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))

    def feature_stages(self):
        return (Stage("all", 2, 1),)

    def forward_features(self, x):
        out = self.layer(x)
        return out, [out[:, :, None, None]]


def lesson(classes=NOBODY, maps=()):
    return Lesson(torch.tensor([[3.0, 4.0]]), classes, maps)


PIXELS = torch.tensor([[3.0, 4.0]])


class TestObjectives:
    @pytest.mark.parametrize(("objective", "loss"), [("angular", 0.04**2), ("l2", 2.0)])
    def test_the_student_is_run_and_compared(self, objective, loss):
        got, cosine = Distillation(Swapping(), objective)(PIXELS, lesson())
        assert got.item() == pytest.approx(loss, rel=1e-4)
        assert cosine.item() == pytest.approx(0.96)
        assert not cosine.requires_grad

    def test_logits_are_compared_over_the_classes_given(self):
        classes = torch.eye(2)
        got, _ = Distillation(Swapping(), "logits", hyperplanes=classes)(PIXELS, lesson())
        assert got.item() > 0
        with pytest.raises(ValueError, match="hyperplanes"):
            Distillation(Swapping(), "logits")

    def test_adadistill_learns_from_faces_whose_person_is_known(self):
        centres = AdaptiveCentres(2, 2)
        module = Distillation(Swapping(), "adadistill", centres=centres)
        assert module(PIXELS, lesson())[0].item() == 0.0
        loss, _ = module(PIXELS, lesson(torch.tensor([1])))
        loss.backward()
        assert module.student.layer.weight.grad.abs().sum() > 0
        with pytest.raises(ValueError, match="centres"):
            Distillation(Swapping(), "adadistill")


class TestIdentity:
    def test_it_counts_by_its_weight_and_for_known_faces_alone(self):
        identity = MarginSoftmax(2, 2, inherited=torch.eye(2))
        module = Distillation(Swapping(), "angular", identity=identity, identity_weight=0.25)
        both = Lesson(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([1, -1]))
        pixels = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        own = identity(torch.tensor([[4.0, 3.0]]), torch.tensor([1])).item()
        assert module(pixels, both)[0].item() == pytest.approx(0.04**2 / 2 + 0.25 * own, rel=1e-5)
        nobody = Lesson(both.embeddings, torch.tensor([-1, -1]))
        assert module(pixels, nobody)[0].item() == pytest.approx(0.04**2 / 2, rel=1e-4)


class TestStages:
    def test_stages_of_the_same_stride_are_paired(self):
        assert paired_stages(SMALL, LARGE) == [(0, 1), (1, 2)]
        assert paired_stages(LARGE, SMALL) == [(1, 0), (2, 1)]
        with pytest.raises(ValueError, match="no stage of the same stride"):
            paired_stages(SMALL, LARGE[:1])

    def test_golden_value(self):
        """Projected by given weights, pooled from 4 x 4 to 2 x 2 by hand, compared as flat vectors."""
        torch.manual_seed(0)
        matching = StageMatching(SMALL, LARGE, (0.5, 2.0))
        teacher = [torch.randn(2, 5, 9, 9), torch.randn(2, 4, 2, 2), torch.randn(2, 6, 2, 2)]
        student = [torch.randn(2, 2, 4, 4), torch.randn(2, 3, 2, 2)]
        wanted = 0.0
        for weight, projection, own, other in zip((0.5, 2.0), matching.projections, student, teacher[1:], strict=True):
            projected = torch.einsum("oi,nihw->nohw", projection.weight[:, :, 0, 0], own)
            side = own.shape[2] // 2
            pooled = projected.reshape(2, -1, 2, side, 2, side).mean((3, 5))
            wanted += weight * angular_distillation(other.flatten(1), pooled.flatten(1)).item()
        assert matching(teacher, student).item() == pytest.approx(wanted, rel=1e-5)

    def test_a_projection_can_learn_what_a_linear_student_lacks(self):
        torch.manual_seed(0)
        matching = StageMatching(SMALL[:1], LARGE[1:2], (1.0,))
        student = torch.randn(4, 2, 3, 3)
        teacher = torch.einsum("oi,nihw->nohw", torch.randn(4, 2), student)
        optimizer = torch.optim.Adam(matching.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            loss = matching([teacher], [student])
            loss.backward()
            optimizer.step()
        assert loss.item() < 1e-4

    def test_as_many_weights_as_pairs(self):
        with pytest.raises(ValueError, match="2 pairs of stages, but 1 weights"):
            StageMatching(SMALL, LARGE, (1.0,))

    def test_no_gradient_reaches_the_teachers_maps(self):
        matching = StageMatching(SMALL[:1], LARGE[1:2], (1.0,))
        teacher = torch.randn(1, 4, 2, 2, requires_grad=True)
        student = torch.randn(1, 2, 2, 2, requires_grad=True)
        matching([teacher], [student]).backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0

    def test_the_loss_is_added_to_the_embeddings(self):
        torch.manual_seed(0)
        student = Swapping()
        stages = StageMatching(student.feature_stages(), (Stage("t", 3, 1),), (2.0,))
        maps = [torch.randn(1, 3, 1, 1)]
        got = Distillation(student, "angular", stages=stages)(PIXELS, lesson(maps=maps))[0].item()
        alone = Distillation(student, "angular")(PIXELS, lesson())[0].item()
        own = stages(maps, [torch.tensor([4.0, 3.0]).reshape(1, 2, 1, 1)]).item()
        assert got == pytest.approx(alone + own, rel=1e-5)
