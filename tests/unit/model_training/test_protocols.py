"""Verification over an `embed` callable: what is read, what is counted."""

import numpy as np
import pytest

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.pairs import Pair, PairList, read_lfw_pairs
from model_training.protocols.verification import verification

PAIRS = """2\t1
Ada\t1\t2
Ada\t1\tBob\t3
Bob\t3\t1
Ada\t2\tEve\t10
"""
PICTURES = ("Ada/Ada_0001", "Ada/Ada_0002", "Bob/Bob_0001", "Bob/Bob_0003", "Eve/Eve_0010")


@pytest.fixture
def folder(tmp_path):
    for name in PICTURES:
        path = tmp_path / "lfw" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "lfw"


def write(folder, text):
    path = folder.parent / "pairs.txt"
    path.write_text(text)
    return path


class TestReadPairs:
    def test_pairs_come_in_the_order_of_the_folds(self, folder):
        listed = read_lfw_pairs(write(folder, PAIRS), folder)
        pairs = listed.pairs
        assert listed.folds == 2
        assert [listed.person(picture) for picture in listed.pictures] == ["Ada", "Ada", "Bob", "Bob", "Eve"]
        assert [(pair.first.stem, pair.second.stem, pair.same) for pair in pairs] == [
            ("Ada_0001", "Ada_0002", True),
            ("Ada_0001", "Bob_0003", False),
            ("Bob_0003", "Bob_0001", True),
            ("Ada_0002", "Eve_0010", False),
        ]
        assert pairs[3].second == folder / "Eve" / "Eve_0010.jpg"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n\n",
            "two folds\n",
            "2\n",
            PAIRS.replace("Ada\t1\t2", "Ada\t1"),
            PAIRS.replace("Ada\t1\t2", "Ada\tone\t2"),
            PAIRS.replace("Ada\t1\tBob\t3", "Ada\t1\tBob\tthree"),
            PAIRS.replace("Ada\t1\tBob\t3", "Ada\t1\tBob\t3\t4"),
        ],
        ids=["empty", "blank", "words", "one number", "short row", "no number", "no second number", "long row"],
    )
    def test_another_form_is_refused(self, folder, text):
        with pytest.raises(ProtocolError, match="not a pairs file"):
            read_lfw_pairs(write(folder, text), folder)

    @pytest.mark.parametrize("text", [PAIRS.replace("2\t1\n", "2\t2\n", 1), PAIRS + "Ada\t1\t2\n"])
    def test_another_number_of_pairs_than_announced_is_refused(self, folder, text):
        with pytest.raises(ProtocolError, match="announces"):
            read_lfw_pairs(write(folder, text), folder)

    def test_a_missing_picture_is_named(self, folder):
        (folder / "Eve" / "Eve_0010.jpg").unlink()
        with pytest.raises(ProtocolError, match=r"Eve_0010\.jpg"):
            read_lfw_pairs(write(folder, PAIRS), folder)


ANGLES = {"a1": 0, "a2": 20, "b1": 90, "b2": 115, "c1": 200, "c2": 230}


def embed_angle(path):
    angle = np.radians(ANGLES[path.stem])
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


@pytest.fixture
def pairs(tmp_path):
    listed = [("a1", "a2"), ("a1", "b1"), ("b1", "b2"), ("b2", "c1"), ("c1", "c2"), ("c2", "a1")]
    return PairList([Pair(tmp_path / first, tmp_path / second, first[0] == second[0]) for first, second in listed], 3)


class TestVerification:
    def test_scores_are_cosines_and_every_fold_is_right(self, pairs):
        result = verification(pairs, embed_angle)
        expected = np.cos(np.radians([20, 90, 25, 85, 30, 130]))
        np.testing.assert_allclose(result.scores, expected, atol=1e-6)
        assert result.same.tolist() == [True, False] * 3
        assert (result.accuracy.mean, result.accuracy.std) == (1.0, 0.0)
        assert (result.missed, result.pictures) == ((), 6)

    def test_each_picture_is_embedded_once(self, pairs):
        seen = []

        def embed(path):
            seen.append(path.stem)
            return embed_angle(path)

        verification(pairs, embed)
        assert sorted(seen) == sorted(ANGLES)

    def test_pictures_without_a_face_count_as_unlike_everybody(self, pairs):
        result = verification(pairs, lambda path: None if path.stem == "a1" else embed_angle(path))
        assert result.scores[[0, 1, 5]].tolist() == [-1.0, -1.0, -1.0]
        assert result.missed == ("a1",)
        # Fold 1 at (cos 85 + cos 30) / 2 = 0.48: the pair of one person is lost. Fold 2 at (cos 30 - 1) / 2 = -0.07,
        # the only gap that the other folds leave: its two people at 85 degrees are taken for one. Fold 3: both right.
        assert result.accuracy.thresholds[:2] == pytest.approx([0.4766, -0.0670], abs=1e-4)
        assert result.accuracy.mean == pytest.approx((0.5 + 0.5 + 1.0) / 3)

    def test_rates_that_the_impostors_cannot_support_are_left_out(self, pairs):
        # Sixty impostor pairs: twelve expected at the first rate, six at the second.
        assert verification(PairList(pairs.pairs * 20, 3), embed_angle, fars=(0.2, 0.1)).tar == {0.2: 1.0}

    def test_the_progress_wraps_every_picture(self, pairs):
        shown = []

        def progress(pictures):
            for path in pictures:
                shown.append(path.stem)
                yield path

        verification(pairs, embed_angle, progress=progress)
        assert sorted(shown) == sorted(ANGLES)

    def test_the_interval_is_binomial_where_nobody_knows_the_people(self, pairs):
        """Every fold has one pair of b1, whose embedding says nothing; of 6,000 pairs 2,000 are judged by chance."""
        many = PairList(pairs.pairs * 1_000, 3)
        result = verification(many, lambda path: embed_angle(path) if path.stem != "b1" else None)
        half = 1.96 * np.sqrt(result.accuracy.mean * (1 - result.accuracy.mean) / 6_000)
        low, high = result.accuracy_interval
        assert (low, high) == pytest.approx((result.accuracy.mean - half, result.accuracy.mean + half), abs=0.002)

    def test_the_interval_is_wide_where_few_people_make_many_pairs(self, pairs):
        many = PairList(pairs.pairs * 1_000, 3, person=lambda picture: picture.name[0])
        result = verification(many, lambda path: embed_angle(path) if path.stem != "b1" else None)
        low, high = result.accuracy_interval
        # Three people: without b everything is right, with b alone nothing but one pair may be.
        assert high == 1.0
        assert low < result.accuracy.mean - 0.1
