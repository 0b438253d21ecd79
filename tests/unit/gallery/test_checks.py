"""A face's quality as it is stored."""

import json

from service.domain import FaceQuality
from service.gallery.checks import quality_json, quality_of

QUALITY = FaceQuality(100.0, 0.9, 20.0, 0.1, -2.0, ("face-blurred",), yaw_deg=12.5, pitch_deg=-3.0)


def test_all_of_it_comes_back():
    assert quality_of(quality_json(QUALITY)) == QUALITY
    assert quality_of(quality_json(None)) is None


def test_what_a_version_without_angles_stored_is_read_without_them():
    older = {name: value for name, value in json.loads(quality_json(QUALITY)).items() if not name.endswith("h_deg")}
    del older["yaw_deg"]
    read = quality_of(json.dumps(older))
    assert read.yaw_deg is None
    assert read.pitch_deg is None
    assert (read.roll_deg, read.issues) == (-2.0, ("face-blurred",))
