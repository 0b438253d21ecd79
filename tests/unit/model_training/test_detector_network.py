"""The network's size, its coding of faces, and that OpenCV reads the exported file the same way."""

import cv2
import numpy as np
import pytest
import torch

from model_training.detector.assignment import assign
from model_training.detector.export import (
    ExportError,
    check_parity,
    export_detector,
    torch_outputs,
    with_scores_lowered,
    write_manifest,
)
from model_training.detector.geometry import Kind
from model_training.detector.network import (
    LEAST_SAY,
    FaceNetwork,
    agreed_landmarks,
    cell_grid,
    decode_boxes,
    decode_landmarks,
    encode_boxes,
    encode_landmarks,
    parameter_count,
)
from service.contract import read_manifest
from service.vision.detection import YuNetDetector


@pytest.fixture(scope="module")
def network():
    """Random weights, scores spread over (0, 1), and norms with statistics that folding could get wrong."""
    torch.manual_seed(3)
    network = FaceNetwork()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.7, 1.3)
                module.bias.normal_(0, 0.2)
        network.eval()
        pixels = torch.from_numpy(picture(160, 160).transpose(2, 0, 1)[None].astype(np.float32))
        maps = network.level_maps(pixels)
        for name, heads in network.heads.items():
            for head, level in zip(heads, maps[name], strict=True):
                head[1].weight *= 0.7 / level.std()
                head[1].bias.zero_()
    return network.eval()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "detector.onnx"
    export_detector(network, path)
    return path


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_it_is_of_yunets_size(network):
    assert 50_000 < parameter_count(network) <= 76_000


def test_coding_faces_and_back():
    cells, strides = cell_grid(64, 96)
    boxes = torch.tensor([10.0, 12.0, 50.0, 61.0]).expand(len(cells), 4)
    points = torch.arange(10.0).reshape(5, 2).expand(len(cells), 5, 2)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, cells, strides), cells, strides), boxes)
    torch.testing.assert_close(decode_landmarks(encode_landmarks(points, cells, strides), cells, strides), points)


@pytest.mark.parametrize(("height", "width"), [(160, 160), (96, 224)])
def test_opencv_decodes_every_cell_as_training_does(network, exported, height, width):
    image = picture(height, width)
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    answers = torch_outputs(network, pixels)
    cells, strides = cell_grid(height, width)
    joined = {
        head: torch.cat([torch.from_numpy(answers[f"{head}_{s}"]) for s in (8, 16, 32)], dim=1)[0]
        for head in ("cls", "obj", "bbox", "kps")
    }
    boxes = decode_boxes(joined["bbox"], cells, strides).numpy()
    points = decode_landmarks(joined["kps"], cells, strides).numpy()
    scores = torch.sqrt(joined["cls"] * joined["obj"])[:, 0].numpy()

    # With a suppression threshold of 1 nothing is suppressed and OpenCV returns every cell, best first.
    reader = cv2.FaceDetectorYN.create(str(exported), "", (width, height), 0.0, 1.0, 100_000)
    rows = reader.detect(image)[1]
    order = np.argsort(-scores, kind="stable")
    assert len(rows) == len(cells)
    np.testing.assert_allclose(rows[:, 14], scores[order], atol=1e-4)
    # Equal scores may come in another order, so faces are compared where the score is unique.
    gaps = -np.diff(scores[order], prepend=2, append=-1)
    clear = np.flatnonzero((gaps[:-1] > 1e-5) & (gaps[1:] > 1e-5))
    assert len(clear) > len(cells) // 2
    chosen = order[clear]
    np.testing.assert_allclose(rows[clear, :2], boxes[chosen, :2], atol=0.02)
    np.testing.assert_allclose(rows[clear, :2] + rows[clear, 2:4], boxes[chosen, 2:], atol=0.02)
    np.testing.assert_allclose(rows[clear, 4:14], points[chosen].reshape(-1, 10), atol=0.02)


def test_the_exported_file_answers_as_the_network(network, exported):
    assert check_parity(network, exported) < 1e-3


def test_a_lowered_score_moves_the_threshold_and_no_box(network):
    pixels = torch.from_numpy(picture(64, 64).transpose(2, 0, 1)[None].astype(np.float32))
    before, after = (torch_outputs(n, pixels) for n in (network, with_scores_lowered(network, 0.7)))
    for name in ("obj_8", "cls_16"):
        at = lambda p: np.log(p / (1 - p))  # noqa: E731
        np.testing.assert_allclose(at(after[name]), at(before[name]) - at(0.7) + at(0.6), atol=1e-4)
    np.testing.assert_array_equal(after["bbox_8"], before["bbox_8"])
    # Neighbours' shares change a little with their scores.
    np.testing.assert_allclose(after["kps_8"], before["kps_8"], atol=0.1)
    with pytest.raises(ValueError, match="threshold"):
        with_scores_lowered(network, 1.0)


def test_another_network_is_not_mistaken_for_the_exported_one(exported):
    torch.manual_seed(4)
    stranger = FaceNetwork()
    for heads in stranger.heads.values():
        for head in heads:
            torch.nn.init.normal_(head[0].weight, std=0.5)
    with pytest.raises(ExportError):
        check_parity(stranger, exported)


def test_the_service_opens_the_file_at_odd_sizes(exported):
    detector = YuNetDetector(exported, score_threshold=0.5)
    for height, width in ((33, 150), (150, 150), (700, 321)):
        assert isinstance(detector.detect(picture(height, width)), list)


def test_the_manifest_describes_the_file(exported, network):
    manifest = write_manifest(exported, data=["made up"], training={"steps": 0}, metrics={"recall": 0.5})
    assert read_manifest(exported) == manifest
    assert manifest.role == "detector"
    assert manifest.parameters <= parameter_count(network)


def rows_of(*faces):
    """Labels of one canvas from (centre x, centre y, side, kind)."""
    rows = np.zeros((1, max(4, len(faces)), 15), dtype=np.float32)
    for index, (x, y, side, kind) in enumerate(faces):
        rows[0, index, :4] = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
        rows[0, index, 4:14] = np.tile([x, y], 5)
        rows[0, index, 14] = kind
    return torch.from_numpy(rows)


def assigned(rows):
    return assign(rows, torch.zeros(1, 1, 16), 160, 160)


def test_every_face_has_a_cell_wherever_and_however_large_it_is():
    rng = np.random.default_rng(0)
    for side in (11, 14, 20, 33, 39.9, 41, 59, 61, 97, 143, 150):
        for _ in range(8):
            x, y = rng.uniform(1, 159, 2)
            targets = assigned(rows_of((x, y, side, Kind.FACE)))
            assert (targets.weight > 0).any(), (x, y, side)
            assert not ((targets.weight > 0) & targets.negative).any()


def test_levels_share_faces_by_size():
    _, strides = cell_grid(160, 160)

    def levels(side):
        return set(strides[assigned(rows_of((80, 80, side, Kind.FACE))).weight[0] > 0].tolist())

    assert levels(20) == {8.0}
    assert levels(50) == {8.0, 16.0}
    assert levels(80) == {16.0}
    assert levels(120) == {16.0, 32.0}
    assert levels(150) == {32.0}


def test_the_answers_of_a_patient_teacher_go_to_their_cells_and_no_others():
    rows = rows_of((80, 80, 64, Kind.TAUGHT), (30, 30, 30, Kind.FACE))
    answers = torch.zeros(1, 5, 16)
    answers[0, 0, :14], answers[0, 1, :14] = torch.arange(14.0), torch.arange(14.0) + 1
    answers[0, :2, 14:] = torch.tensor([[205.0, 1.0], [206.0, 0.4]])
    targets, plain = assign(rows, answers, 160, 160), assigned(rows_of((30, 30, 30, Kind.FACE)))
    assert targets.weight[0, 205].item() == 1
    assert targets.weight[0, 206].item() == pytest.approx(0.4)
    assert targets.boxes[0, 206].tolist() == [1, 2, 3, 4]
    assert targets.landmarks[0, 205].flatten().tolist() == list(range(4, 14))
    others = torch.ones(525, dtype=torch.bool)
    others[205:207] = False
    assert torch.equal(targets.weight[0, others], plain.weight[0, others])
    assert torch.equal(targets.negative[0, others], plain.negative[0, others])
    assert not targets.negative[0, 205:207].any()


def test_ignored_regions_are_not_asked_and_empty_rows_mean_nothing():
    targets = assigned(rows_of((80, 80, 64, Kind.IGNORE)))
    cells, strides = cell_grid(160, 160)
    middles = (cells + 0.5) * strides[:, None]
    inside = ((middles >= 48) & (middles < 112)).all(dim=1)
    assert not (targets.weight > 0).any()
    assert torch.equal(targets.negative[0], ~inside)


def test_the_smaller_of_two_faces_has_the_cell():
    targets = assigned(rows_of((80, 80, 58, Kind.FACE), (82, 82, 44, Kind.FACE)))
    widths = (targets.boxes[..., 2] - targets.boxes[..., 0])[targets.weight > 0]
    assert widths.min() == 44
    contested = (targets.boxes[..., 2] - targets.boxes[..., 0])[0, 10 * 20 + 10]
    assert contested == 44


def test_agreed_landmarks_are_the_weighted_mean_of_nine_cells() -> None:
    generator = torch.Generator().manual_seed(3)
    rows, columns = 4, 5
    landmarks = torch.randn(1, 10, rows, columns, generator=generator)
    face, fit = (torch.randn(1, 1, rows, columns, generator=generator) for _ in range(2))
    agreed = agreed_landmarks(landmarks, face, fit)
    say = (face.sigmoid() * fit.sigmoid())[0, 0] + LEAST_SAY
    for row in range(rows):
        for column in range(columns):
            total, weight = torch.zeros(5, 2), 0.0
            for r in range(max(0, row - 1), min(rows, row + 2)):
                for c in range(max(0, column - 1), min(columns, column + 2)):
                    # In strides of the picture, where all cells speak of the same points.
                    points = landmarks[0, :, r, c].reshape(5, 2) + torch.tensor([c, r])
                    total += say[r, c] * points
                    weight += float(say[r, c])
            expected = total / weight - torch.tensor([column, row])
            assert torch.allclose(agreed[0, :, row, column].reshape(5, 2), expected, atol=1e-5)


def test_landmarks_teach_the_scores_nothing() -> None:
    landmarks, face, fit = (torch.zeros(1, channels, 3, 3, requires_grad=True) for channels in (10, 1, 1))
    agreed_landmarks(landmarks, face, fit).sum().backward()
    assert landmarks.grad is not None
    assert landmarks.grad.abs().min() > 0
    assert face.grad is None
    assert fit.grad is None
