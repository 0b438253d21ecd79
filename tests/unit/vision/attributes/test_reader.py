"""Several attribute networks together: shared runs, averages, views, and what overload and disagreement do."""

import asyncio

import numpy as np
import pytest

from service.contract import ContractError
from service.domain import (
    AttributeUnavailable,
    Box,
    ClassReading,
    Detection,
    FaceQuality,
    Overloaded,
    ScoreReading,
    age_range,
    mean_reading,
)
from service.ports import BoxView, FoundFace
from service.vision.attributes.reader import BatchedAttributes, load_networks
from tests.attribute_networks import gender_and_age, liveness, red_masks, write_manifest, write_network
from tests.unit.vision.common import DETECTOR

CPU = ["CPUExecutionProvider"]
GENDER_VIEW = BoxView(1.5, 96)
NEAR, FAR = (BoxView(scale, 80, "box", "inside") for scale in (2.7, 4.0))
DETECTION = Detection(Box(0, 0, 10, 10), np.zeros((5, 2), np.float32), 0.9)
QUALITY = FaceQuality(10, 0.9, 10, 0, 0)


def face(colour=(0, 0, 0), **views):
    """A face of one colour, (blue, green, red), and with views of colours of their own."""
    named = {"gender": GENDER_VIEW, "near": NEAR, "far": FAR}
    seen = {named[name]: np.full((named[name].side_px,) * 2 + (3,), each, np.uint8) for name, each in views.items()}
    return FoundFace(DETECTION, QUALITY, np.full((112, 112, 3), colour, np.uint8), views=seen)


def asked(networks, ask, **options):
    """What `ask(attributes)` gives, over networks that are closed again."""

    async def work():
        attributes = BatchedAttributes(networks, **options)
        try:
            return await ask(attributes)
        finally:
            await attributes.close()

    return asyncio.run(work())


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    paths = [gender_and_age(folder), liveness(folder, "near", 2.7), liveness(folder, "far", 4.0, per_level=0.01)]
    return load_networks(None, [*red_masks(folder), *paths], CPU)


def test_only_what_is_asked_for_is_told_and_looked_at(networks):
    runs = []

    async def ask(attributes):
        assert attributes.names == {"mask", "gender", "age", "liveness"}
        assert attributes.networks_of["liveness"] == "near, far"
        assert attributes.views(["mask"]) == frozenset()
        assert attributes.views(["age", "gender"]) == {GENDER_VIEW}
        assert attributes.views(["liveness", "mask"]) == {NEAR, FAR}
        return await attributes.read(
            [face((0, 0, 51), gender=(0, 40, 0)), face((0, 0, 255), gender=(0, 80, 0))], ["age"]
        )

    told = asked(networks, ask, on_batch=lambda network, size: runs.append((network, size)))
    assert [set(each) for each in told.faces] == [{"age"}, {"age"}]
    assert [each["age"].value for each in told.faces] == pytest.approx([40, 80], abs=1e-3)
    assert set(told.timings_ms) == {"age"}
    assert told.timings_ms["age"] > 0
    assert runs == [("genderage", 2)]


def test_networks_of_one_attribute_are_averaged(networks):
    async def ask(attributes):
        return await attributes.read([face(near=(200, 0, 0), far=(100, 0, 0))], ["liveness", "mask"])

    (told,) = asked(networks, ask).faces
    # Logits 0, 4, 0 from the one, 0, 1, 0 from the other.
    expected = (np.exp(4) / (np.exp(4) + 2) + np.e / (np.e + 2)) / 2
    assert told["liveness"] == ScoreReading(pytest.approx(expected, abs=1e-5), 0.5)
    assert told["mask"].probability == 0


def test_callers_share_runs_and_get_their_own_answers(networks):
    sizes = []

    async def ask(attributes):
        return await asyncio.gather(*(attributes.read([face((0, 0, level))], ["mask"]) for level in range(0, 250, 10)))

    answers = asked(networks, ask, max_batch=8, on_batch=lambda _, size: sizes.append(size))
    told = [answer.faces[0]["mask"].probability for answer in answers]
    np.testing.assert_allclose(told, np.arange(0, 250, 10) / 255, atol=1e-4)
    assert sum(sizes) == 25
    assert 1 < max(sizes) <= 8


def test_no_face_takes_no_run(networks):
    async def ask(attributes):
        return await attributes.read([], ["mask", "age"])

    assert list(asked(networks, ask, on_batch=lambda *_: pytest.fail("a run")).faces) == []


def test_more_than_may_wait_is_refused(networks):
    async def ask(attributes):
        await attributes.read([face()] * 5, ["mask"])

    with pytest.raises(Overloaded):
        asked(networks, ask, max_pending=4)


def test_a_face_without_an_answer_is_a_problem_of_its_request_alone(tmp_path):
    path = write_network(tmp_path / "log.onnx", np.eye(3), np.zeros(3), side_px=112, then="Log")
    write_manifest(
        path,
        crop={"kind": "aligned", "side_px": 112},
        pixels={"colour_order": "RGB"},
        readings=[{"kind": "value", "name": "warmth"}],
    )

    async def ask(attributes):
        calls = (attributes.read([face(colour)], ["warmth"]) for colour in ((0, 0, 0), (0, 0, 100)))
        return await asyncio.gather(*calls, return_exceptions=True)

    bad, good = asked(load_networks(None, [path], CPU), ask)
    assert isinstance(bad, AttributeUnavailable)
    assert bad.details["attributes"] == ["warmth"]
    assert good.faces[0]["warmth"].value == pytest.approx(np.log(100), abs=1e-4)


def test_the_bundled_mask_classifier_is_one_of_them(tmp_path):
    networks = load_networks(DETECTOR.with_name("mask.onnx"), [gender_and_age(tmp_path)], CPU)

    async def ask(attributes):
        return attributes.names, (await attributes.read([face((120, 130, 140))], ["mask"])).faces

    names, (told,) = asked(networks, ask)
    assert names == {"mask", "gender", "age"}
    assert 0 <= told["mask"].probability <= 1


def test_networks_that_disagree_are_refused(tmp_path):
    near = liveness(tmp_path, "near", 2.7)
    far = liveness(tmp_path, "far", 4.0)
    write_manifest(
        far,
        crop={"kind": "box", "side_px": 80, "scale": 4.0},
        pixels={"colour_order": "BGR"},
        readings=[
            {"kind": "score", "name": "liveness", "classes": 3, "index": 1, "numbers": "logits", "threshold": 0.9}
        ],
    )
    with pytest.raises(ContractError, match="near and far tell liveness in different ways"):
        load_networks(None, [near, far], CPU)


def test_means_of_classes_go_by_label():
    told = mean_reading([ClassReading({"a": 0.9, "b": 0.1}), ClassReading({"b": 0.5, "a": 0.5})])
    assert told.probabilities == pytest.approx({"a": 0.7, "b": 0.3})
    assert (told.value, told.probability) == ("a", pytest.approx(0.7))


def test_a_score_counts_from_its_threshold_on():
    assert ScoreReading(0.5, 0.5).value
    assert not ScoreReading(0.499, 0.5).value


@pytest.mark.parametrize(
    ("label", "ages"),
    [("25-32", (25, 32)), ("31", (31, 31)), ("60+", (60, 100)), ("adult", None), ("32-25", None), ("-5", None)],
)
def test_labels_of_ages(label, ages):
    assert age_range(label) == ages
