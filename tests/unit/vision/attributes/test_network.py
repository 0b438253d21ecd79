"""Attribute networks from ONNX files in the layouts of public ones, and what is wrong with those that do not fit."""

import json
import math

import numpy as np
import pytest

from service.contract import ContractError
from service.domain import AttributeUnavailable, ClassReading, ScoreReading, ValueReading
from service.vision.attributes.manifest import read_attribute_manifest
from service.vision.attributes.network import AttributeNetwork
from tests.attribute_networks import gender_and_age, liveness, write_manifest, write_network

CROP = {"kind": "aligned", "side_px": 32}
PIXELS = {"colour_order": "RGB", "scale": 1 / 255}
CLASSES = {"kind": "classes", "name": "hair", "labels": ["red", "green", "blue"], "numbers": "logits"}
SAME = np.eye(3)
NONE = np.zeros(3)


def load(path):
    return AttributeNetwork(path, read_attribute_manifest(path))


def coloured(side_px, *colours):
    """Views of one colour each, (blue, green, red)."""
    return np.stack([np.full((side_px, side_px, 3), colour, np.uint8) for colour in colours])


def described(path, *readings, **members):
    return write_manifest(path, **{"crop": CROP, "pixels": PIXELS, "readings": readings, **members})


def small(folder, *readings, weights=SAME, bias=NONE, **network):
    """A network that gives red, green and blue, each in [0, 1]."""
    return described(write_network(folder / "small.onnx", weights, bias, side_px=32, **network), *readings)


class TestPublicLayouts:
    def test_gender_and_age(self, tmp_path):
        network = load(gender_and_age(tmp_path))
        assert network.names == {"gender", "age"}
        first, second = network.read(coloured(96, (200, 31, 0), (0, 64, 100)))
        male = math.exp(2) / (1 + math.exp(2))
        assert first["gender"].probabilities == pytest.approx({"female": 1 - male, "male": male}, abs=1e-5)
        assert (first["gender"].value, first["gender"].probability) == ("male", pytest.approx(male, abs=1e-5))
        assert first["age"] == ValueReading(pytest.approx(31, abs=1e-3), "years")
        assert second["gender"].value == "female"
        assert second["age"].value == pytest.approx(64, abs=1e-3)

    def test_liveness_one_face_at_a_time(self, tmp_path):
        network = load(liveness(tmp_path, "minifasnet", 2.7))
        live, spoof = network.read(coloured(80, (200, 0, 255), (0, 200, 255)))
        # Logits 0, 4 and 0; and three of 0.
        assert live["liveness"] == ScoreReading(pytest.approx(math.exp(4) / (math.exp(4) + 2), abs=1e-5), 0.5)
        assert spoof["liveness"].probability == pytest.approx(1 / 3, abs=1e-5)
        assert (live["liveness"].value, spoof["liveness"].value) == (True, False)


class TestReadings:
    def test_logits_of_classes(self, tmp_path):
        ((told),) = load(small(tmp_path, CLASSES)).read(coloured(32, (0, 51, 255)))
        powers = [math.exp(1.0), math.exp(0.2), 1.0]
        assert list(told["hair"].probabilities.values()) == pytest.approx([each / sum(powers) for each in powers])
        assert list(told["hair"].probabilities) == ["red", "green", "blue"]

    def test_probabilities_are_taken_as_they_are(self, tmp_path):
        half = small(
            tmp_path, {**CLASSES, "numbers": "probabilities"}, weights=SAME * [[0.4], [0], [0]], bias=[0.1, 0.5, 0.2]
        )
        (told,) = load(half).read(coloured(32, (0, 0, 127)))
        assert told["hair"].value == "green"
        assert sum(told["hair"].probabilities.values()) == pytest.approx(1)

    def test_one_logit_by_the_logistic_function(self, tmp_path):
        reading = {"kind": "score", "name": "smile", "first": 1, "numbers": "logits", "threshold": 0.7}
        told = load(small(tmp_path, reading, weights=SAME * 2)).read(coloured(32, (0, 255, 0), (0, 0, 255)))
        assert told[0]["smile"].probability == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
        assert told[1]["smile"].probability == pytest.approx(0.5)
        assert [each["smile"].value for each in told] == [True, False]

    def test_extreme_logits_stay_probabilities(self, tmp_path):
        readings = (CLASSES, {"kind": "score", "name": "smile", "numbers": "logits"})
        (told,) = load(small(tmp_path, *readings, weights=SAME * 5_000)).read(coloured(32, (0, 0, 255)))
        assert told["hair"].probabilities["red"] == told["smile"].probability == 1

    def test_a_value_has_factor_and_offset(self, tmp_path):
        reading = {"kind": "value", "name": "height", "first": 2, "factor": 30, "offset": -5, "unit": "cm"}
        (told,) = load(small(tmp_path, reading)).read(coloured(32, (255, 0, 0)))
        assert told == {"height": ValueReading(pytest.approx(25, abs=1e-4), "cm")}

    def test_outputs_are_found_by_name(self, tmp_path):
        reading = {"kind": "value", "name": "height", "output": "tall"}
        (told,) = load(small(tmp_path, reading, output="tall")).read(coloured(32, (0, 0, 255)))
        assert told["height"].value == pytest.approx(1)

    def test_a_batch_that_an_export_promises_wrongly(self, tmp_path):
        network = load(small(tmp_path, CLASSES, one_inside=True))
        told = network.read(coloured(32, (0, 0, 255), (0, 255, 0), (255, 0, 0)))
        assert [each["hair"].value for each in told] == ["red", "green", "blue"]

    def test_a_face_without_a_finite_answer_leaves_the_others_alone(self, tmp_path):
        good, bad = load(small(tmp_path, CLASSES, then="Log")).read(coloured(32, (9, 99, 9), (0, 9, 9)))
        assert isinstance(good["hair"], ClassReading)
        assert isinstance(bad, AttributeUnavailable)


class TestRefusals:
    def refused(self, path, match):
        with pytest.raises(ContractError, match=match):
            load(path)

    def test_a_manifest_is_needed(self, tmp_path):
        path = small(tmp_path, CLASSES)
        path.with_suffix(".json").unlink()
        self.refused(path, "no manifest at")

    def test_a_network_is_needed(self, tmp_path):
        path = small(tmp_path, CLASSES)
        path.unlink()
        self.refused(path, "no model at")

    def test_the_network_is_the_one_described(self, tmp_path):
        path = small(tmp_path, CLASSES)
        path.write_bytes(path.read_bytes() + b"\n")
        self.refused(path, "SHA-256 differs")
        self.refused(described(path, CLASSES, file="other.onnx"), "describes other.onnx")

    def test_the_file_is_a_network(self, tmp_path):
        path = tmp_path / "text.onnx"
        path.write_bytes(b"no network")
        self.refused(described(path, CLASSES), "cannot be loaded as a network")

    def test_the_pictures_have_its_size(self, tmp_path):
        path = described(small(tmp_path, CLASSES), CLASSES, crop={"kind": "box", "side_px": 48, "scale": 1})
        self.refused(path, r"pictures of shape \[3, 32, 32\], its manifest says \[3, 48, 48\]")
        path = described(path, CLASSES, pixels={"colour_order": "RGB", "layout": "NHWC"})
        self.refused(path, r"manifest says \[32, 32, 3\]")

    def test_a_fixed_number_of_faces_is_one(self, tmp_path):
        self.refused(small(tmp_path, CLASSES, batch=4), "takes 4 pictures at a time")

    def test_the_output_is_there_and_long_enough(self, tmp_path):
        self.refused(small(tmp_path, {**CLASSES, "output": "logits"}), "no output logits; it has fc1")
        self.refused(small(tmp_path, {**CLASSES, "first": 1}), "too few numbers for hair")

    def test_logits_are_not_called_probabilities(self, tmp_path):
        self.refused(small(tmp_path, {**CLASSES, "numbers": "probabilities"}), "no probabilities; logits")

    def test_answers_are_finite(self, tmp_path):
        self.refused(small(tmp_path, CLASSES, weights=np.full((3, 3), np.inf)), "not finite")

    @pytest.mark.parametrize(
        ("reading", "match"),
        [
            ({**CLASSES, "labels": ["red", "red", "blue"]}, "labels differ"),
            ({**CLASSES, "name": "Hair"}, "pattern"),
            ({**CLASSES, "name": "search"}, "stage of the service"),
            ({**CLASSES, "name": "mask"}, "told as score"),
            ({**CLASSES, "name": "age"}, "25-32"),
            ({"kind": "value", "name": "liveness"}, "told as score"),
            ({"kind": "score", "name": "smile", "classes": 2, "index": 2, "numbers": "logits"}, "none of 2 classes"),
            ({"kind": "value", "name": "height", "factor": "Infinity"}, "finite"),
            ({"kind": "guess", "name": "height"}, "kind"),
            ({"kind": "value", "name": "height", "colour": 1}, "Extra inputs"),
        ],
    )
    def test_readings_that_make_no_sense(self, tmp_path, reading, match):
        self.refused(small(tmp_path, reading), f"(?s)not valid.*{match}")

    @pytest.mark.parametrize(
        ("members", "match"),
        [
            ({"format": 2}, "format"),
            ({"readings": []}, "readings"),
            ({"readings": [CLASSES, CLASSES]}, "each attribute once"),
            ({"crop": {"kind": "box", "side_px": 32, "scale": 100}}, "scale"),
            ({"crop": {"kind": "aligned", "side_px": 4_000}}, "side_px"),
            ({"pixels": {"colour_order": "RGB", "mean": [1, 2]}}, "mean"),
        ],
    )
    def test_manifests_that_make_no_sense(self, tmp_path, members, match):
        path = small(tmp_path, CLASSES)
        self.refused(described(path, *members.pop("readings", [CLASSES]), **members), f"(?s)not valid.*{match}")

    def test_a_manifest_that_is_no_json(self, tmp_path):
        path = small(tmp_path, CLASSES)
        path.with_suffix(".json").write_text(json.dumps([1])[:-1])
        self.refused(path, "not valid")
