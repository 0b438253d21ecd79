"""Lists of pairs in the layouts that data sets come in, written here as small as they can be."""

import pickle

import numpy as np
import pytest

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.pairs import (
    read_annotated_pairs,
    read_cfp_pairs,
    read_packed_pairs,
    read_two_line_pairs,
)
from model_training.protocols.verification import verification


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def shown(listed):
    return [(pair.first.name, pair.second.name, pair.same) for pair in listed.pairs]


class TestCfp:
    """Two people of two frontal pictures and one in profile, two splits."""

    @pytest.fixture
    def root(self, tmp_path):
        frontal = [f"../Data/Images/{person}/frontal/0{number}.jpg" for person in ("001", "002") for number in (1, 2)]
        profile = [f"../Data/Images/{person}/profile/01.jpg" for person in ("001", "002")]
        protocol = tmp_path / "Protocol"
        for kind, paths in (("F", frontal), ("P", profile)):
            protocol.mkdir(exist_ok=True)
            lines = [f"{number} {path}\n" for number, path in enumerate(paths, 1)]
            (protocol / f"Pair_list_{kind}.txt").write_text("".join(lines))
            touch(*(tmp_path / path.removeprefix("../") for path in paths))
        splits = {"FF": (("1,2", "1,3"), ("3,4", "4,2")), "FP": (("1,1", "1,2"), ("3,2", "4,1"))}
        for kind, folds in splits.items():
            for number, (same, different) in enumerate(folds, 1):
                split = protocol / "Split" / kind / f"{number:02d}"
                split.mkdir(parents=True)
                (split / "same.txt").write_text(same + "\n")
                (split / "diff.txt").write_text(different + "\n")
        return tmp_path

    def test_frontal_pairs_take_both_pictures_from_the_frontal_list(self, root):
        listed = read_cfp_pairs(root, "FF")
        parts = [(pair.first.parts[-3:], pair.second.parts[-3:], pair.same) for pair in listed.pairs]
        assert parts == [
            (("001", "frontal", "01.jpg"), ("001", "frontal", "02.jpg"), True),
            (("001", "frontal", "01.jpg"), ("002", "frontal", "01.jpg"), False),
            (("002", "frontal", "01.jpg"), ("002", "frontal", "02.jpg"), True),
            (("002", "frontal", "02.jpg"), ("001", "frontal", "02.jpg"), False),
        ]
        assert (listed.folds, listed.person(listed.pairs[1].second)) == (2, "002")

    def test_profile_pairs_take_the_second_from_the_profile_list(self, root):
        listed = read_cfp_pairs(root, "FP")
        assert [(pair.second.parent.name, pair.second.parts[-3]) for pair in listed.pairs] == [
            ("profile", "001"), ("profile", "002"), ("profile", "002"), ("profile", "001"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("Split/FP/01/same.txt", "1,9\n", "names no two pictures"),
            ("Split/FP/01/same.txt", "1;1\n", "names no two pictures"),
            ("Split/FP/01/same.txt", "1,1\n2,1\n", "equal folds"),
            ("Pair_list_P.txt", "1 ../../../etc/passwd\n", "no number and picture"),
            ("Pair_list_P.txt", "one ../Data/Images/001/profile/01.jpg\n", "no number and picture"),
        ],
    )
    def test_other_content_is_refused(self, root, name, text, said):
        (root / "Protocol" / name).write_text(text)
        with pytest.raises(ProtocolError, match=said):
            read_cfp_pairs(root, "FP")

    def test_missing_files_are_named(self, root):
        (root / "Data/Images/002/profile/01.jpg").unlink()
        with pytest.raises(ProtocolError, match=r"no picture at .*002/profile/01\.jpg"):
            read_cfp_pairs(root, "FP")
        (root / "Protocol/Pair_list_P.txt").unlink()
        with pytest.raises(ProtocolError, match=r"Pair_list_P\.txt cannot be read"):
            read_cfp_pairs(root, "FP")


def two_lines(folder, subfolder, same_label):
    """Ten pairs of either kind, those of one person first as CALFW has them."""
    text = []
    for number in range(10):
        text += [f"Ada_{number:04d}.jpg {same_label(number)}", f"Ada_{number + 1:04d}.jpg {same_label(number)}"]
    for number in range(10):
        text += [f"Ada_{number:04d}.jpg 0", f"Bob_Ray_{number:04d}.jpg 0"]
    touch(*(folder / subfolder / f"Ada_{number:04d}.jpg" for number in range(11)))
    touch(*(folder / subfolder / f"Bob_Ray_{number:04d}.jpg" for number in range(10)))
    pairs = folder / "pairs.txt"
    pairs.write_text("\n".join(text) + "\n")
    return pairs


class TestTwoLines:
    @pytest.mark.parametrize(
        ("subfolder", "same_label"),
        [("aligned images", lambda number: number + 1), ("images", lambda _: 1), ("", lambda _: 1)],
        ids=["CALFW", "CPLFW", "flat"],
    )
    def test_each_fold_has_a_tenth_of_either_kind(self, tmp_path, subfolder, same_label):
        listed = read_two_line_pairs(two_lines(tmp_path, subfolder, same_label), tmp_path)
        assert listed.folds == 10
        assert shown(listed)[6:8] == [
            ("Ada_0003.jpg", "Ada_0004.jpg", True),
            ("Ada_0003.jpg", "Bob_Ray_0003.jpg", False),
        ]
        assert listed.pairs[0].first == tmp_path / subfolder / "Ada_0000.jpg"
        assert {listed.person(picture) for picture in listed.pictures} == {"Ada", "Bob_Ray"}

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("Ada_0001.jpg 1\n", "Ada_0001.jpg 0\n", "are no pair"),
            ("Ada_0001.jpg 1\n", "Ada_0001.jpg\n", "are no pair"),
            ("Bob_Ray_0009.jpg 0\n", "", "middle of a pair"),
            ("Ada_0009.jpg 0\nBob_Ray_0009.jpg 0\n", "", "make no 10 folds"),
        ],
    )
    def test_other_content_is_refused(self, tmp_path, old, new, said):
        pairs = two_lines(tmp_path, "", lambda _: 1)
        text = pairs.read_text()
        assert old in text
        pairs.write_text(text.replace(old, new, 1))
        with pytest.raises(ProtocolError, match=said):
            read_two_line_pairs(pairs, tmp_path)

    def test_a_missing_picture_is_named(self, tmp_path):
        pairs = two_lines(tmp_path, "images", lambda _: 1)
        (tmp_path / "images" / "Bob_Ray_0007.jpg").unlink()
        with pytest.raises(ProtocolError, match=r"no picture at .*Bob_Ray_0007\.jpg"):
            read_two_line_pairs(pairs, tmp_path)


class TestAnnotated:
    def write(self, tmp_path, lines):
        (tmp_path / "agedb_30_ann.txt").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "agedb_30_ann.txt"

    def test_labels_come_before_paths(self, tmp_path):
        lines = [f"{1 - number % 2} agedb_30/{number}.jpg agedb_30/{number + 100}.jpg" for number in range(20)]
        touch(*(tmp_path / "agedb_30" / f"{number + more}.jpg" for number in range(20) for more in (0, 100)))
        listed = read_annotated_pairs(self.write(tmp_path, lines), tmp_path)
        assert shown(listed)[:3] == [
            ("0.jpg", "100.jpg", True),
            ("1.jpg", "101.jpg", False),
            ("2.jpg", "102.jpg", True),
        ]
        assert (listed.folds, listed.person) == (10, None)

    @pytest.mark.parametrize("line", ["a.jpg b.jpg 1", "2 a.jpg b.jpg", "1 a.jpg"])
    def test_other_content_is_refused(self, tmp_path, line):
        with pytest.raises(ProtocolError, match="not a label and two pictures"):
            read_annotated_pairs(self.write(tmp_path, [line]), tmp_path)


def test_packed_pairs_are_judged_like_others(tmp_path):
    """Twenty pairs whose pictures say at which angle they lie; every tenth same-person pair is far apart."""
    pictures, same = [], []
    for number in range(10):
        pictures += [b"0", b"80" if number == 3 else b"20", b"0", b"70"]
        same += [True, False]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((pictures, same), protocol=4))
    listed = read_packed_pairs(tmp_path / "lfw.bin")

    def embed(picture):
        angle = np.deg2rad(float(picture.read_bytes()))
        return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)

    result = verification(listed, embed)
    assert result.same.tolist() == same
    assert (result.accuracy.mean, result.pictures) == (pytest.approx(0.95), 40)
    assert result.accuracy_interval.low < 0.95 < result.accuracy_interval.high
