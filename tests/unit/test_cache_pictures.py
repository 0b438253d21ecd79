"""The bytes that a cached picture is kept as."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache import pictures
from service.domain import FaceQuality
from service.vision.quality import QualityGate
from tests.unit.test_cache import key, picture, unit

KNOWN = picture(1, 2)
CONTENT = pictures.encoded(KNOWN)


def test_what_is_kept_is_small_and_holds_no_embedding():
    assert len(CONTENT) < 350
    assert unit(1).tobytes() not in CONTENT
    assert pictures.decoded(CONTENT).keys == (key(1), key(2))


def test_every_issue_of_the_gate_has_its_bit():
    issues = QualityGate().issues(0.0, 0.0, 0.0, 9.0)
    assert len(issues) == 4
    (face, _) = KNOWN.faces
    faces = tuple(
        replace(face, quality=replace(face.quality, issues=(issue,)), strict_issues=issues) for issue in issues
    )
    outline = pictures.decoded(pictures.encoded(replace(KNOWN, faces=faces, faces_total=4)))
    found = outline.with_embeddings([unit(1)] * 4).faces
    assert [each.quality.issues for each in found] == [(issue,) for issue in issues]
    assert {each.strict_issues for each in found} == {issues}


@pytest.mark.parametrize(
    "face",
    [
        replace(KNOWN.faces[0], key="not a digest"),
        replace(KNOWN.faces[0], key="ab"),
        replace(KNOWN.faces[0], strict_issues=("of another version",)),
        replace(KNOWN.faces[0], quality=FaceQuality(1.0, 1.0, 1.0, 1.0, 1.0)),
    ],
    ids=["text", "short", "issue", "no pose"],
)
def test_what_the_format_cannot_hold_is_not_kept(face):
    assert pictures.encoded(replace(KNOWN, faces=(face,))) is None


def test_more_faces_than_the_format_holds_are_not_kept():
    assert pictures.encoded(replace(KNOWN, faces=KNOWN.faces * 501, faces_total=1_002)) is None


def test_values_that_are_not_finite_are_garbage():
    (face, _) = KNOWN.faces
    spoilt = replace(face, detection=replace(face.detection, score=float("nan")))
    assert pictures.decoded(pictures.encoded(replace(KNOWN, faces=(spoilt,)))) is None


@pytest.mark.parametrize("change", [{"width": 0}, {"height": 0}, {"width": 1 << 21}, {"faces_total": 1}])
def test_a_picture_that_cannot_be_is_garbage(change):
    assert pictures.decoded(pictures.encoded(replace(KNOWN, **change))) is None


@given(st.binary(max_size=500))
def test_any_bytes_are_a_picture_or_none(content):
    outline = pictures.decoded(content)
    assert outline is None or len(content) == 15 + 158 * len(outline.keys)


@given(at=st.integers(0, len(CONTENT) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_tampered_entries_are_pictures_or_none(at, value, cut):
    content = CONTENT[:at] if cut else CONTENT[:at] + bytes([value]) + CONTENT[at + 1 :]
    outline = pictures.decoded(content)
    assert not (cut and outline)
    if outline is not None:
        faces = outline.with_embeddings([unit(1), unit(2)]).faces
        assert all(np.isfinite(face.detection.landmarks).all() for face in faces)
