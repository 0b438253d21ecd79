"""Objectives against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from model_training.objectives.losses import angular_distillation, l2_distillation, logit_distillation

TEACHER = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])


class TestAngular:
    def test_golden_value(self):
        student = torch.tensor([[4.0, 3.0], [1.0, 1.0], [0.0, -1.0]])
        # Cosines 24/25, 1/sqrt(2) and -1: squares of 0.04, 0.292893 and 2.
        expected = (0.04**2 + (1 - math.sqrt(0.5)) ** 2 + 4.0) / 3
        assert angular_distillation(TEACHER, student).item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("factor", "loss"), [(7.0, 0.0), (1e-2, 0.0), (-2.0, 4.0)])
    def test_only_directions_count(self, factor, loss):
        assert angular_distillation(TEACHER, TEACHER * factor).item() == pytest.approx(loss, abs=1e-6)

    def test_right_angles_cost_one(self):
        student = torch.tensor([[-4.0, 3.0], [0.0, 9.0], [5.0, 0.0]])
        assert angular_distillation(TEACHER, student).item() == pytest.approx(1.0, abs=1e-6)

    def test_the_gradient_is_that_of_the_formula_and_stays_with_the_student(self):
        teacher = torch.tensor([[1.0, 0.0]], requires_grad=True)
        student = torch.tensor([[1.0, 1.0]], requires_grad=True)
        angular_distillation(teacher, student).backward()
        # cos = x / r, so d(1 - cos)^2 / dx = -2 (1 - cos) y^2 / r^3 and / dy = 2 (1 - cos) x y / r^3; r = sqrt(2).
        slope = 2 * (1 - math.sqrt(0.5)) / 2**1.5
        assert student.grad.tolist()[0] == pytest.approx([-slope, slope], rel=1e-5)
        assert teacher.grad is None

    def test_half_precision_is_compared_in_full(self):
        student = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.bfloat16)
        loss = angular_distillation(TEACHER, student)
        assert loss.dtype == torch.float32
        assert loss.item() < 1e-10


class TestL2:
    def test_golden_value(self):
        student = torch.tensor([[4.0, 3.0], [1.0, 1.0], [0.0, -1.0]])
        # 1 + 1, 0 + 1, 0 + 9.
        assert l2_distillation(TEACHER, student).item() == pytest.approx((2 + 1 + 9) / 3)

    def test_lengths_count(self):
        assert l2_distillation(TEACHER, TEACHER * 2).item() == pytest.approx((25 + 1 + 4) / 3)

    def test_no_gradient_reaches_the_teacher(self):
        teacher = TEACHER.clone().requires_grad_()
        student = torch.zeros(3, 2, requires_grad=True)
        l2_distillation(teacher, student).backward()
        assert teacher.grad is None
        # 2 (s - t) / n
        torch.testing.assert_close(student.grad, -2 * TEACHER / 3)


class TestLogits:
    HYPERPLANES = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])

    def test_golden_value(self):
        student = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-3.0, 0.0]])
        # Cosines to the classes are (x, y, -x) of unit vectors; softmax at scale 8, temperature 2, so 4 times those.
        expected = 0.0
        for (tx, ty), (sx, sy) in zip([(0.6, 0.8), (1, 0), (0, 1)], [(1, 0), (0.6, 0.8), (-1, 0)], strict=True):
            t, s = np.exp(4 * np.array([tx, ty, -tx])), np.exp(4 * np.array([sx, sy, -sx]))
            t, s = t / t.sum(), s / s.sum()
            expected += (t * np.log(t / s)).sum() * 4 / 3
        got = logit_distillation(TEACHER, student, self.HYPERPLANES, scale=8.0, temperature=2.0)
        assert got.item() == pytest.approx(expected, rel=1e-5)

    def test_the_same_directions_cost_nothing(self):
        assert logit_distillation(TEACHER, TEACHER * 5, self.HYPERPLANES).item() == pytest.approx(0.0, abs=1e-5)

    def test_no_gradient_reaches_the_teacher_or_its_classes(self):
        teacher, classes = TEACHER.clone().requires_grad_(), self.HYPERPLANES.clone().requires_grad_()
        student = torch.ones(3, 2, requires_grad=True)
        logit_distillation(teacher, student, classes).backward()
        assert teacher.grad is None
        assert classes.grad is None
        assert student.grad.abs().sum() > 0
