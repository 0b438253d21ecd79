"""Templates against averages, ranks and rates that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.templates import (
    TemplateFace,
    TemplateFaces,
    search_templates,
    templates,
    verify_templates,
)


def at(degrees):
    return np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], dtype=np.float32)


def listed(*rows):
    """Rows of template, media, angle; no angle where no face is found."""
    faces = [
        TemplateFace(Path(f"{'none' if angle is None else angle}/{number}")) for number, (*_, angle) in enumerate(rows)
    ]
    return TemplateFaces(faces, np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))


def embed(face):
    angle = face.path.parts[0]
    return None if angle == "none" else at(float(angle))


def angles(made):
    return {
        template: round(float(np.rad2deg(np.arctan2(*made.vectors[row][::-1]))), 3)
        for template, row in made.row_of.items()
    }


class TestAveraging:
    def test_a_video_of_many_frames_weighs_as_much_as_a_picture(self):
        made = templates(listed((7, 1, 0), (3, 5, 200), (7, 2, 90), (7, 1, 0), (7, 1, 0)), embed)
        assert angles(made) == {3: -160.0, 7: 45.0}
        np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-6)

    def test_the_mean_of_a_medium_is_not_stretched(self):
        """Frames that disagree say less: (at(0) + at(120)) / 2 has half the length of the picture at 180."""
        made = templates(listed((1, 1, 0), (1, 1, 120), (1, 2, 180)), embed)
        expected = at(60) / 2 + at(180)
        assert angles(made)[1] == pytest.approx(np.rad2deg(np.arctan2(expected[1], expected[0])), abs=1e-2)

    def test_the_same_number_of_a_medium_in_another_template_is_another(self):
        assert angles(templates(listed((1, 1, 10), (2, 1, 50)), embed)) == {1: 10.0, 2: 50.0}

    def test_faces_that_are_not_found_are_left_out_and_counted(self):
        made = templates(listed((1, 1, 30), (1, 2, None), (2, 1, None), (3, 1, 0), (3, 2, 180)), embed)
        assert angles(made)[1] == 30.0
        # Nothing is known of template 2, and 3 points nowhere.
        assert (made.empty, made.missed) == ({2, 3}, 2)
        assert not made.vectors[made.row_of[2]].any()

    def test_no_face_at_all_is_refused(self):
        with pytest.raises(ProtocolError, match="no face in any of 2 pictures"):
            templates(listed((1, 1, None), (2, 1, None)), embed)


class TestVerification:
    def test_rates_are_those_of_the_comparisons_listed(self):
        made = templates(listed(*((number, 1, number) for number in range(180)), (500, 1, None)), embed)
        impostors = [(0, angle) for angle in range(60, 80)]
        # Half of the impostors may pass: the first to refuse is at 70 degrees, the mates at 69 and 10 are accepted.
        mates = [(0, 69), (0, 10), (100, 171), (0, 500)]
        first, second = np.array(impostors + mates).T
        result = verify_templates(made, first, second, np.arange(24) >= 20, fars=(0.5, 0.4))
        assert result.tar == {0.5: 0.5}
        assert (result.mates, result.impostors) == (4, 20)
        # Two persons: 0, 69, 10 and 500 of three comparisons, 100 and 171 of one.
        assert result.intervals[0.5] == pytest.approx((0.0, 2 / 3))

    def test_a_template_without_faces_in_the_list_is_refused(self):
        made = templates(listed((1, 1, 0)), embed)
        with pytest.raises(ProtocolError, match="template 9 has no faces"):
            verify_templates(made, np.array([1]), np.array([9]), np.array([True]))

    def test_no_comparison_of_one_person_is_refused(self):
        made = templates(listed((1, 1, 0), (2, 1, 5)), embed)
        with pytest.raises(ProtocolError, match="of one person"):
            verify_templates(made, np.array([1]), np.array([2]), np.array([False]))


class TestSearch:
    def test_ranks_and_rates(self):
        """A gallery at 0, 30 and 60 degrees, and one of nobody's face; four mated probes, twenty strangers."""
        gallery = {1: 100, 2: 200, 3: 300, 4: 400}
        rows = [(1, 1, 0), (2, 1, 30), (3, 1, 60), (4, 1, None)]
        probes = {10: 100, 11: 200, 12: 100, 13: 400, 14: 100}
        rows += [(10, 1, 5), (11, 1, 50), (12, 1, 350), (13, 1, 0), (14, 1, None)]
        probes |= {number: number for number in range(1_000, 1_020)}
        rows += [(number, 1, 60 + number - 1_000 + 1) for number in range(1_000, 1_020)]
        found = search_templates(templates(listed(*rows), embed), gallery, probes, fpirs=(0.5, 0.1))
        # 10 and 12 are first; 11 comes after person 300; nothing is known of 400's face or of probe 14's.
        assert found.cmc[:4] == (0.4, 0.6, 0.6, 0.6)
        assert found.cmc[19] == 0.6
        # Ten of twenty strangers may pass: those at 61 to 70. The first to refuse is 11 degrees from person 300.
        assert found.fnir == {0.5: 0.6}
        assert (found.mated, found.strangers) == (5, 20)
        assert found.intervals[0.0].low == 0.0
        assert found.intervals[0.5].high == 1.0

    def test_a_threshold_refuses_a_first_place(self):
        gallery = {1: 100}
        rows = [(1, 1, 0), (10, 1, 20), *((number, 1, number - 1_000) for number in range(1_010, 1_030))]
        probes = {10: 100, **{number: number for number in range(1_010, 1_030)}}
        found = search_templates(templates(listed(*rows), embed), gallery, probes, fpirs=(0.5,))
        # The strangers at 10 to 19 degrees pass, the one at 20 does not: as near as the probe.
        assert (found.cmc[0], found.fnir[0.5]) == (1.0, 1.0)

    def test_looking_for_nobody_in_the_gallery_is_refused(self):
        made = templates(listed((1, 1, 0), (2, 1, 5)), embed)
        with pytest.raises(ProtocolError, match="anybody in the gallery"):
            search_templates(made, {1: 100}, {2: 200})
