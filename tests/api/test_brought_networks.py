"""Age, gender and liveness by networks that an operator brings: through every call, and when they do not fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.api.app import create_app
from service.contract import ContractError
from service.settings import Settings
from service.vision.attributes.manifest import AttributeManifest
from tests.api.conftest import TILE, build_fake, png
from tests.api.test_galleries import problem
from tests.attribute_networks import gender_and_age, liveness, red_masks, write_manifest, write_network

PAGE = (Path(__file__).parents[2] / "docs" / "attributes.md").read_text(encoding="utf-8")

# Of a picture that is one tile, what a window of the tile's side times 1.5 shows is black but for this share.
SHOWN = (1 / 1.5) ** 2


def networks(folder: Path) -> Sequence[Path]:
    return [*red_masks(folder), gender_and_age(folder), liveness(folder, "near", 2.7), liveness(folder, "far", 4.0)]


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, partial(build_fake, networks=networks)), raise_server_exceptions=False) as app:
        yield app


def tile(blue: int, green: int, red: int) -> NDArray[np.uint8]:
    """A face of these mean levels: stripes, so that the detector of these tests takes it for one."""
    stripes = np.where(np.arange(TILE) // 8 % 2 == 0, 30, -30)[:, None, None]
    return (np.full((TILE, TILE, 3), (blue, green, red)) + stripes).astype(np.uint8)


def expected_male(blue: float, red: float) -> float:
    return 1 / (1 + math.exp(-(blue - red) * SHOWN / 100))


FACE = tile(200, 100, 60)


@pytest.mark.parametrize("path", ["/identify", "/v1/detect", "/v1/embeddings"])
def test_age_and_gender_are_told_as_the_network_reads_them(client: TestClient, path: str) -> None:
    answer = client.post(path, files={"image": png(FACE)}, data={"attributes": "age, gender"}).json()
    (face,) = answer["faces"]
    age, gender = face["attributes"]["age"], face["attributes"]["gender"]
    # The borders of the face fade into the black around it.
    assert age == {"kind": "value", "value": pytest.approx(100 * SHOWN, abs=1.5), "unit": "years"}
    assert (gender["kind"], gender["value"]) == ("classes", "male")
    assert gender["probability"] == gender["probabilities"]["male"] == pytest.approx(expected_male(200, 60), abs=0.01)
    assert gender["probabilities"]["female"] == pytest.approx(1 - gender["probability"], abs=2e-4)
    assert face["mask"] is None
    assert {"age", "gender"} <= set(answer["timings_ms"])
    assert "liveness" not in answer["timings_ms"]


def test_liveness_is_the_mean_of_two_networks_and_enough_to_decide_by(client: TestClient) -> None:
    client.post("/enroll", files={"image": png(FACE)}, data={"person_id": "ada"})
    answer = client.post("/identify", files={"image": png(FACE)}, data={"attributes": "liveness"}).json()
    (face,) = answer["faces"]
    # However far their windows reach, both are moved into a picture that is the face: 4 of blue's logit.
    live = face["attributes"]["liveness"]
    assert live["probability"] == pytest.approx(math.exp(4) / (math.exp(4) + 2), abs=0.002)
    assert (live["kind"], live["value"], live["threshold"]) == ("score", True, 0.5)
    assert face["decision"]["person_id"] == "ada"
    spoof = client.post("/identify", files={"image": png(tile(30, 90, 90))}, data={"attributes": "liveness"}).json()
    assert spoof["faces"][0]["attributes"]["liveness"]["value"] is False
    assert answer["model"]["attributes"] == {
        "age": "genderage",
        "gender": "genderage",
        "liveness": "near, far",
        "mask": "reds",
    }
    assert client.get("/health/ready").json()["model"]["attributes"] == answer["model"]["attributes"]


def test_each_face_has_the_window_of_its_own_box(client: TestClient) -> None:
    two = np.concatenate([tile(40, 40, 40), np.zeros((TILE, TILE, 3), np.uint8), tile(200, 200, 200)], axis=1)
    answer = client.post("/v1/detect", files={"image": png(two)}, data={"attributes": "age"}).json()
    ages = sorted(face["attributes"]["age"]["value"] for face in answer["faces"])
    assert ages == pytest.approx([40 * SHOWN, 200 * SHOWN], abs=2.5)


def test_a_verification_tells_of_both_pictures(client: TestClient) -> None:
    pictures = {"image": png(FACE), "reference": png(tile(30, 50, 200))}
    answer = client.post("/v1/verify", files=pictures, data={"attributes": "gender,mask"}).json()
    assert answer["face"]["attributes"]["gender"]["value"] == "male"
    assert answer["reference"]["attributes"]["gender"]["value"] == "female"
    assert answer["reference"]["mask"]["worn"] is True
    assert set(answer["timings_ms"]) == {"decode", "detect", "align", "embed", "gender", "mask"}
    client.post("/enroll", files={"image": png(FACE)}, data={"person_id": "ada"})
    person = {"person_id": "ada", "attributes": "liveness"}
    answer = client.post("/v1/verify", files={"image": png(FACE)}, data=person).json()
    assert answer["face"]["attributes"]["liveness"]["value"] is True
    assert client.post("/v1/verify", files=pictures).json()["face"]["attributes"] == {}


def test_enrolments_and_batches_tell_it_too(client: TestClient) -> None:
    enrolled = client.post("/enroll", files={"image": png(FACE)}, data={"attributes": "age", "person_id": "ada"}).json()
    age = enrolled["faces"][0]["attributes"]["age"]["value"]
    assert age == pytest.approx(100 * SHOWN, abs=1.5)
    assert str(age) not in client.get("/v1/galleries/default/persons/ada/export").text
    batch = client.post("/v1/batch/identify", files={"images": png(FACE)}, data={"attributes": "age"}).json()
    assert batch["items"][0]["result"]["faces"][0]["attributes"]["age"]["value"] == age


@pytest.mark.parametrize("path", ["/identify", "/v1/detect", "/v1/embeddings", "/enroll", "/v1/verify"])
def test_what_there_is_no_network_for_is_refused_and_the_answer_says_what_there_is(
    client: TestClient, path: str
) -> None:
    pictures = {"image": png(FACE)} | ({"reference": png(FACE)} if path == "/v1/verify" else {})
    answer = client.post(path, files=pictures, data={"attributes": "age,emotion"})
    assert problem(answer) == (422, "attribute-unavailable")
    assert answer.json()["attributes"] == ["emotion"]
    assert answer.json()["available"] == ["age", "gender", "liveness", "mask"]


def test_the_stages_are_measured(client: TestClient) -> None:
    client.post("/v1/detect", files={"image": png(FACE)}, data={"attributes": "age,liveness"})
    measured = client.get("/metrics").text
    assert 'shrinkface_stage_seconds_count{stage="age"}' in measured
    assert 'shrinkface_stage_seconds_count{stage="liveness"}' in measured


class TestCompreFace:
    RECOGNIZE, DETECT = "/api/v1/recognition/recognize", "/api/v1/detection/detect"

    @pytest.mark.parametrize("path", [RECOGNIZE, DETECT])
    def test_age_and_gender_have_its_members(self, client: TestClient, path: str) -> None:
        params = {"face_plugins": "age,gender,liveness", "status": "true"}
        answer = client.post(path, params=params, files={"file": png(FACE)}).json()
        (face,) = answer["result"]
        years = round(100 * SHOWN)
        assert face["age"]["low"] == face["age"]["high"] == pytest.approx(years, abs=2)
        assert face["age"]["probability"] is None
        assert face["gender"]["value"] == "male"
        assert face["gender"]["probability"] == pytest.approx(expected_male(200, 60), abs=0.01)
        assert "liveness" not in face
        assert {"age", "gender"} <= set(face["execution_time"])
        assert answer["plugins_versions"]["age"] == answer["plugins_versions"]["gender"] == "genderage"
        bare = client.post(path, files={"file": png(FACE)}).json()["result"][0]
        assert not {"age", "gender", "mask"} & set(bare)

    def test_ages_in_classes_are_ranges_with_a_probability(self, settings: Settings) -> None:
        def by_class(folder: Path) -> Sequence[Path]:
            path = write_network(folder / "ages.onnx", np.eye(3) / 64, np.zeros(3), side_px=112)
            reading = {"kind": "classes", "name": "age", "labels": ["0-2", "25-32", "60+"], "numbers": "logits"}
            crop, pixels = {"kind": "aligned", "side_px": 112}, {"colour_order": "BGR"}
            return [write_manifest(path, crop=crop, pixels=pixels, readings=[reading])]

        with TestClient(create_app(settings, partial(build_fake, networks=by_class))) as client:
            for colour, ages in (((60, 200, 60), (25, 32)), ((60, 60, 200), (60, 100))):
                answer = client.post(self.DETECT, params={"face_plugins": "age"}, files={"file": png(tile(*colour))})
                age = answer.json()["result"][0]["age"]
                assert (age["low"], age["high"]) == ages
                assert age["probability"] == pytest.approx(1 / (1 + 2 * math.exp(-140 / 64)), abs=1e-3)


@pytest.mark.parametrize("example", re.findall(r"```json\n(\{\n  \"format\".+?)```", PAGE, re.DOTALL))
def test_the_manifests_in_the_documentation_describe_the_public_layouts(tmp_path: Path, example: str) -> None:
    described = json.loads(example)
    face = described["crop"]["side_px"] == 96
    path = gender_and_age(tmp_path) if face else liveness(tmp_path, "minifasnet", described["crop"]["scale"])
    written = json.loads(path.with_suffix(".json").read_text())
    ours = AttributeManifest.model_validate({**described, "file": path.name, "sha256": written["sha256"]})
    tested = AttributeManifest.model_validate(written)
    assert (ours.crop, ours.pixels, ours.readings) == (tested.crop, tested.pixels, tested.readings)


class TestStart:
    def test_the_networks_of_the_settings_are_loaded_beside_the_bundled_one(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path / "data", attribute_models=[gender_and_age(tmp_path)], _env_file=None)
        with TestClient(create_app(settings)) as running:
            model = running.get("/health/ready").json()["model"]
            assert model["attributes"] == {"age": "genderage", "gender": "genderage", "mask": "mask"}

    @pytest.mark.parametrize("damage", ["network", "manifest"])
    def test_a_damaged_one_stops_it(self, tmp_path: Path, damage: str) -> None:
        path = gender_and_age(tmp_path)
        (path if damage == "network" else path.with_suffix(".json")).write_bytes(b"{}")
        settings = Settings(data_dir=tmp_path / "data", attribute_models=[path], _env_file=None)
        with pytest.raises(ContractError, match="genderage"), TestClient(create_app(settings)):
            pass
