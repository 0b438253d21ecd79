"""Training faces that are in a test set, under whatever name, are found; others are not."""

import csv

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from model_training.cli import app
from model_training.data.alignment import Aligner, Alignment
from model_training.data.faces import AlignedFaces
from model_training.data.overlap import Limits, Reason, differing_bits, find_overlaps, perceptual_hashes
from model_training.teachers.networks import OnnxTeacher, PixelFormat
from service.demo import load_portraits
from service.settings import Settings
from tests.unit.model_training.common import MeanColours

PAIRS = "1\t1\nEileen_Collins\t1\t2\nKurt_Goedel\t1\tEileen_Collins\t2\n"


@pytest.fixture(scope="module")
def crops():
    """The faces of an astronaut and of an admiral, from their photos."""
    aligner = Aligner(Alignment(Settings().detector_path))
    found = [aligner.crop_of(cv2.imencode(".png", portrait.pixels)[1].tobytes()) for portrait in load_portraits()]
    return found[0], found[1]


def recompressed(crop):
    return cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


def moved(crop):
    """Cut by two pixels, and warmer."""
    matrix = np.array([[1.02, 0, 2], [0, 1.02, -2]], dtype=np.float32)
    warped = cv2.warpAffine(crop, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(warped * np.array([0.9, 1.0, 1.1]), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(crops, tmp_path):
    """Training faces, of which only the second is of nobody in the test set; a test face of somebody in no pair."""
    astronaut, admiral = crops
    train = {
        "Some_Stranger/1.jpg": recompressed(astronaut),
        "Grace_Hopper/1.jpg": admiral,
        "Another_Stranger/1.jpg": moved(astronaut[:, ::-1]),
        "Kurt_Goedel/7.jpg": moved(admiral),
    }
    test = {"Eileen_Collins/1.jpg": astronaut, "Grace_Hopper/9.jpg": admiral}
    for name, faces in (("train", train), ("test", test)):
        stored = AlignedFaces(np.stack([np.ascontiguousarray(crop) for crop in faces.values()]), list(faces))
        stored.save(tmp_path / name, range(len(faces)))
    (tmp_path / "pairs.txt").write_text(PAIRS)
    return tmp_path


def run(folders, *arguments):
    base = ["check-overlap", "--faces", "train", "--test-faces", "test", "--pairs", "pairs.txt", *arguments]
    paths = [str(folders / word) if (folders / word).exists() else word for word in base]
    return CliRunner().invoke(app, paths, env={"COLUMNS": "200"})


class TestCommand:
    def test_copies_and_names_are_found_and_end_it_with_an_error(self, folders):
        result = run(folders, "--report", str(folders / "report.csv"))
        assert result.exit_code == 1
        assert "3 of 4 training faces are among 1 test faces" in result.output
        with (folders / "report.csv").open() as stream:
            found = {row["face"]: row for row in csv.DictReader(stream)}
        assert sorted(found) == ["Another_Stranger/1.jpg", "Kurt_Goedel/7.jpg", "Some_Stranger/1.jpg"]
        assert found["Some_Stranger/1.jpg"]["found_by"] == "embedding picture"
        assert found["Some_Stranger/1.jpg"]["test_face"] == "Eileen_Collins/1.jpg"
        assert "embedding" in found["Another_Stranger/1.jpg"]["found_by"]
        assert found["Kurt_Goedel/7.jpg"] == {**found["Kurt_Goedel/7.jpg"], "found_by": "name", "test_face": ""}

    def test_dropping_them_leaves_a_folder_without(self, folders):
        result = run(folders, "--drop", str(folders / "clean"))
        assert result.exit_code == 0, result.output
        clean = AlignedFaces.load(folders / "clean")
        assert clean.sources == ["Grace_Hopper/1.jpg"]
        np.testing.assert_array_equal(clean.crops[0], AlignedFaces.load(folders / "train").crops[1])
        (folders / "train").rename(folders / "before")
        (folders / "clean").rename(folders / "train")
        result = run(folders)
        assert result.exit_code == 0
        assert "0 of 1 training faces" in result.output

    def test_a_folder_that_was_not_prepared_is_an_error(self, folders):
        (folders / "train" / "crops.npy").unlink()
        result = run(folders)
        assert result.exit_code == 2
        assert "no prepared faces" in result.output


class TestReasons:
    @pytest.fixture
    def network(self):
        return OnnxTeacher(Settings().embedder_path, PixelFormat(), threads=1)

    def faces(self, *crops):
        return AlignedFaces(
            np.stack([np.ascontiguousarray(crop) for crop in crops]), [f"{i}" for i in range(len(crops))]
        )

    def test_the_hash_finds_a_mirrored_copy_that_the_network_is_not_asked_about(self, crops, network):
        faces = self.faces(crops[1], recompressed(crops[0][:, ::-1]))
        found = find_overlaps(faces, self.faces(*crops[:1]), network, Limits(cosine=1.1, bits=40))
        assert [(overlap.row, overlap.reasons) for overlap in found] == [(1, (Reason.PICTURE,))]

    def test_rows_count_through_all_blocks(self, crops, monkeypatch):
        monkeypatch.setattr("model_training.data.overlap._BLOCK", 2)
        faces = self.faces(crops[1], crops[1], crops[1], crops[0], crops[1])
        found = find_overlaps(faces, self.faces(crops[0]), MeanColours(), Limits(cosine=2, bits=0))
        assert [(overlap.row, overlap.source) for overlap in found] == [(3, "3")]

    def test_the_bits_that_differ_are_counted(self):
        first = np.array([[0, 0, 0, 0], [1, 0, 0, 2**63]], dtype=np.uint64)
        second = np.array([[3, 0, 0, 0], [2**64 - 1] * 4], dtype=np.uint64)
        assert differing_bits(first, second).tolist() == [[2, 256], [2, 254]]

    def test_a_hash_stays_near_under_changes_and_far_from_other_faces(self, crops):
        own, other = perceptual_hashes(np.stack(crops))
        changed = perceptual_hashes(np.stack([recompressed(crops[0]), cv2.GaussianBlur(crops[0], (0, 0), 1.0)]))
        assert differing_bits(own[None], changed).max() <= 12
        assert differing_bits(own[None], other[None])[0, 0] > 80
