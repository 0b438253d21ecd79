"""From pictures to aligned faces: which face, in how many processes, and after which interruptions."""

import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from model_training.data import preparing
from model_training.data.alignment import Alignment
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.pictures import Picture
from model_training.data.preparing import Prepared, prepare_faces
from model_training.data.sources import PictureFolder
from service.contract import TEMPLATE, ContractError, align
from service.demo import load_portraits
from service.domain import Box, Detection
from service.settings import Settings

ALIGNED = Alignment(None)
FACES = np.random.default_rng(0).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8)


class FakeDetector:
    """Finds a small and a large face in pictures that are not black; the landmarks tell them apart."""

    def detect(self, image):
        if not image.any():
            return []
        small = Detection(Box(0, 0, 10, 10), TEMPLATE + np.float32(9), 0.99)
        return [small, Detection(Box(0, 0, 90, 90), TEMPLATE.copy(), 0.7)]


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


class Pictures:
    """A source of pictures in memory, which gives out one by one and breaks off where it is told to."""

    name = "memory"

    def __init__(self, pictures, breaks_at=None):
        self.pictures = pictures
        self.breaks_at = breaks_at
        self.given = 0

    def __len__(self):
        return len(self.pictures)

    def read(self, start=0):
        for number in range(start, len(self.pictures)):
            if number == self.breaks_at:
                raise KeyboardInterrupt
            self.given += 1
            yield self.pictures[number]


@pytest.fixture(scope="module")
def nine():
    """Nine aligned faces of three people; a file that is no picture, one that is not square, and a large one."""
    pictures = [Picture(f"{'abc'[number // 3]}/{number}.png", png(face)) for number, face in enumerate(FACES)]
    pictures.insert(4, Picture("b/broken.png", b"no picture"))
    pictures.insert(7, Picture("b/wide.png", png(FACES[0, :50])))
    pictures.append(Picture("d/large.png", png(np.full((224, 224, 3), 7, np.uint8))))
    return pictures


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(preparing, "_BLOCK", 2)
    monkeypatch.setattr(preparing, "_BLOCKS_AN_ENTRY", 2)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestAligned:
    def test_crops_are_kept_as_they_are_and_others_left_out(self, nine, tmp_path):
        done = prepare_faces(Pictures(nine), tmp_path, ALIGNED)
        assert done == Prepared(12, 10, unreadable=2, name_bytes=done.name_bytes, finished=True)
        faces = AlignedFaces.load(tmp_path)
        np.testing.assert_array_equal(faces.crops[:9], FACES)
        assert (faces.crops[9] == 7).all()
        assert faces.people() == [*"aaabbbccc", "d"]
        assert sorted(contents(tmp_path)) == ["crops.npy", "prepared.json", "sources.json"]

    def test_people_who_must_not_be_in_it_are_not(self, nine, tmp_path):
        done = prepare_faces(Pictures(nine), tmp_path, ALIGNED, exclude=frozenset("bd"))
        assert (done.faces, done.excluded, done.unreadable) == (6, 6, 0)
        assert AlignedFaces.load(tmp_path).people() == [*"aaaccc"]


class TestInterruption:
    @pytest.mark.parametrize("at", [0, 1, 5, 8, 11])
    def test_a_run_that_goes_on_ends_with_the_same_files(self, nine, tmp_path, small_blocks, at):
        prepare_faces(Pictures(nine), tmp_path / "whole", ALIGNED)
        with pytest.raises(KeyboardInterrupt):
            prepare_faces(Pictures(nine, breaks_at=at), tmp_path / "halved", ALIGNED)
        with pytest.raises(DataError, match="no prepared faces"):
            AlignedFaces.load(tmp_path / "halved")
        rest = Pictures(nine)
        prepare_faces(rest, tmp_path / "halved", ALIGNED)
        # Two blocks of two pictures are noted at a time.
        assert rest.given == 12 - at // 4 * 4
        assert contents(tmp_path / "halved") == contents(tmp_path / "whole")

    def test_a_killed_process_leaves_what_the_next_one_goes_on_with(self, tmp_path):
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        for number in range(600):
            (pictures / f"{number:03}.png").write_bytes(png(np.roll(FACES[number % 9], number, axis=0)))
        command = [sys.executable, "-m", "tests.unit.model_training.preparing_worker", pictures, tmp_path / "killed"]
        journal = tmp_path / "killed" / "prepared.json"
        process = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + 60
            while not journal.exists() or json.loads(journal.read_text())["state"]["read"] < 40:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
        finally:
            process.kill()
            process.wait()
        left = json.loads(journal.read_text())["state"]
        assert 40 <= left["read"] < 600 and not left["finished"]
        prepare_faces(PictureFolder(pictures), tmp_path / "killed", ALIGNED)
        prepare_faces(PictureFolder(pictures), tmp_path / "whole", ALIGNED)
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    def test_what_was_written_after_the_last_note_is_written_anew(self, nine, tmp_path, small_blocks):
        prepare_faces(Pictures(nine), tmp_path / "whole", ALIGNED)
        with pytest.raises(KeyboardInterrupt):
            prepare_faces(Pictures(nine, breaks_at=9), tmp_path / "halved", ALIGNED)
        for name in ("crops.npy", "sources.jsonl"):
            with (tmp_path / "halved" / name).open("ab") as stream:
                stream.write(b"half of a crop")
        prepare_faces(Pictures(nine), tmp_path / "halved", ALIGNED)
        assert contents(tmp_path / "halved") == contents(tmp_path / "whole")

    def test_a_finished_folder_is_left_alone(self, nine, tmp_path):
        done = prepare_faces(Pictures(nine), tmp_path, ALIGNED)
        again = Pictures(nine)
        assert prepare_faces(again, tmp_path, ALIGNED) == done
        assert again.given == 0

    def test_a_folder_of_something_else_is_refused(self, nine, tmp_path):
        prepare_faces(Pictures(nine), tmp_path, ALIGNED)
        with pytest.raises(DataError, match="other pictures or in another way"):
            prepare_faces(Pictures(nine[:5]), tmp_path, ALIGNED)
        with pytest.raises(DataError, match="other pictures or in another way"):
            prepare_faces(Pictures(nine), tmp_path, ALIGNED, exclude=frozenset("a"))

    def test_faces_without_a_journal_are_not_overwritten(self, nine, tmp_path):
        AlignedFaces(FACES, [str(i) for i in range(9)]).save(tmp_path, range(9))
        with pytest.raises(DataError, match="holds faces already"):
            prepare_faces(Pictures(nine), tmp_path, ALIGNED)


class TestDetection:
    def test_the_largest_face_of_each_picture_is_aligned_and_the_rest_left_out(self, tmp_path):
        (tmp_path / "pictures" / "Ada").mkdir(parents=True)
        for name, content in (("1.png", png(FACES[0])), ("2.png", png(FACES[0] * 0)), ("3.png", b"no picture")):
            (tmp_path / "pictures" / "Ada" / name).write_bytes(content)
        folder = PictureFolder(tmp_path / "pictures")
        done = prepare_faces(folder, tmp_path / "faces", ALIGNED, detector=FakeDetector())
        assert (done.faces, done.without_face, done.unreadable) == (1, 1, 1)
        faces = AlignedFaces.load(tmp_path / "faces")
        assert faces.sources == ["Ada/1.png"]
        np.testing.assert_array_equal(faces.crops, align(FACES[0], TEMPLATE)[None])

    def test_no_face_at_all_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="no face in any of 1"):
            prepare_faces(Pictures([Picture("1.png", png(FACES[0] * 0))]), tmp_path, ALIGNED, detector=FakeDetector())

    def test_a_detector_that_is_none_is_an_error(self, nine, tmp_path):
        (tmp_path / "detector.onnx").write_text("no network")
        with pytest.raises(ContractError, match="not a face detector"):
            prepare_faces(Pictures(nine), tmp_path / "faces", Alignment(tmp_path / "detector.onnx"), jobs=2)

    def test_several_processes_make_of_real_photos_what_one_does(self, tmp_path, small_blocks):
        photos = [Picture(f"{p.person_id}/1.png", png(p.pixels)) for p in load_portraits()]
        source = Pictures([*photos, Picture("nobody/1.png", png(FACES[0])), photos[0]] * 2)
        alignment = Alignment(Settings().detector_path)
        done = prepare_faces(source, tmp_path / "two", alignment, jobs=2)
        assert (done.faces, done.without_face) == (6, 2)
        prepare_faces(source, tmp_path / "one", alignment)
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        assert json.loads((tmp_path / "two" / "sources.json").read_text())[2] == photos[0].source
