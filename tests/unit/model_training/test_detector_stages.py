"""The teacher's stages are found in its graph, and matching them teaches."""

import numpy as np
import onnx
import pytest
import torch

from model_training.data import DataError
from model_training.detector.export import build_onnx
from model_training.detector.network import HEADS, FaceNetwork
from model_training.detector.stages import StageObjective, StageTeacher, stage_loss


@pytest.fixture(scope="module")
def teacher_network():
    torch.manual_seed(0)
    network = FaceNetwork(16)
    with torch.no_grad():
        for head in network.heads["obj"]:
            head[1].bias.zero_()
    return network.eval()


@pytest.fixture(scope="module")
def teacher(teacher_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    onnx.save(build_onnx(teacher_network), path)
    return StageTeacher(path)


def batch(side=64, count=3):
    rng = np.random.default_rng(0)
    canvases = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    rows = np.zeros((count, 24, 15), dtype=np.float32)
    rows[1:, 0, 14] = 1
    return canvases, rows


@torch.no_grad()
def test_the_stages_of_a_file_are_those_of_its_network(teacher, teacher_network):
    pixels, faceless, *maps = teacher.label(*batch())
    assert faceless.tolist() == [True, False, False]
    expected = teacher_network.stages(pixels)
    heads = teacher_network.head_maps(expected[-3:])
    expected += [level for name in HEADS for level in heads[name]]
    assert len(maps) == len(expected) == 7 + 12
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_a_file_of_another_layout_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info("input", 1, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["cls_8"])], "g", [value], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(DataError):
        StageTeacher(tmp_path / "other.onnx")


@torch.no_grad()
def test_the_teacher_itself_has_nothing_left_to_learn(teacher, teacher_network):
    terms = StageObjective(teacher_network, 64, 40.0)(*teacher.label(*batch()))
    assert terms[1:].abs().max() < 1e-3


def test_stage_loss_is_one_for_the_mean_and_zero_for_the_teacher():
    torch.manual_seed(0)
    teacher_map = torch.randn(4, 5, 8, 8)
    mean = teacher_map.mean(dim=(0, 2, 3), keepdim=True).expand_as(teacher_map)
    assert stage_loss(teacher_map, teacher_map).item() == 0
    assert stage_loss(mean, teacher_map).item() == pytest.approx(1 / 1.1, abs=0.02)


def test_a_student_comes_nearer_to_its_teacher(teacher):
    torch.manual_seed(1)
    student = FaceNetwork(16)
    objective = StageObjective(student, 64, 40.0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    labelled = teacher.label(*batch())
    totals = []
    for _ in range(25):
        total = objective(*labelled)[:-1].sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.6 * totals[0]
