"""A change of model while the real service answers: no identification fails or errs, and what is erased is gone."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from service.cli import app
from service.contract import align
from service.demo import jpeg, load_portraits
from service.settings import Settings
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork
from tests.e2e.conftest import Service
from tests.second_model import second_model

GALLERY = "/v1/galleries/default"
FACES_A_PERSON = 2


def variations(count: int) -> list[NDArray[np.uint8]]:
    """(112, 112, 3) uint8 BGR crops of the portraits, each warped, tinted and covered in another way."""
    detector = YuNetDetector(Settings(_env_file=None).detector_path)
    dice = np.random.default_rng(5)
    found = []
    for index in range(count):
        pixels = load_portraits()[index % 2].pixels
        corners = detector.detect(pixels)[0].landmarks
        spread = float(np.ptp(corners[:, 0]))
        moved = corners + dice.normal(0, 0.22 * spread, corners.shape)
        crop = align(pixels, moved.astype(np.float32)).astype(np.float32)
        crop = crop * dice.uniform(0.5, 1.4, 3) + dice.normal(0, 12, (1, 1, 3))
        top, left = dice.integers(0, 76, 2)
        crop[top : top + 36, left : left + 36] = dice.uniform(0, 255, 3)
        found.append(np.clip(crop, 0, 255).astype(np.uint8))
    return found


def lines(faces: int) -> bytes:
    """Persons of two faces each with kept crops, as an import reads them."""
    network = OnnxNetwork(Settings(_env_file=None).embedder_path)
    crops = variations(faces)
    vectors = np.concatenate([network.embed(np.stack(crops[at : at + 32])) for at in range(0, faces, 32)])
    persons: dict[str, list[dict[str, object]]] = {}
    for index, (crop, vector) in enumerate(zip(crops, vectors, strict=True)):
        persons.setdefault(f"made-{index // FACES_A_PERSON:05}", []).append(
            {
                "face_id": f"f-{index}",
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
                "crop_digest": hashlib.blake2b(crop.tobytes(), digest_size=20).hexdigest(),
                "crop": base64.b64encode(cv2.imencode(".png", crop)[1].tobytes()).decode(),
            }
        )
    space_id = network.space_id
    return b"".join(
        json.dumps({"space_id": space_id, "person_id": person_id, "faces": each}).encode() + b"\n"
        for person_id, each in persons.items()
    )


class Callers:
    """Two threads that go on identifying the portraits; what was answered wrongly, and by which spaces."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pictures = {portrait.person_id: jpeg(portrait.pixels) for portrait in load_portraits()}
        self._end = threading.Event()
        self.wrong: list[str] = []
        self.spaces: list[str] = []
        self.seconds: list[float] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._end.is_set():
                for person_id, picture in self._pictures.items():
                    began = time.perf_counter()
                    answer = client.post("/identify", files={"image": picture})
                    self.seconds.append(time.perf_counter() - began)
                    content = answer.json()
                    if answer.status_code != 200 or content["faces"][0]["decision"]["person_id"] != person_id:
                        self.wrong.append(f"{answer.status_code}: {answer.text[:300]}")
                    else:
                        self.spaces.append(content["model"]["space_id"])

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()


def begun(service: Service, faces: int) -> httpx.Client:
    client = httpx.Client(base_url=service.url, timeout=60)
    client.post("/v1/galleries", json={"name": "default", "keep_crops": True}).raise_for_status()
    client.post("/v1/galleries", json={"name": "without"}).raise_for_status()
    for portrait in load_portraits():
        files, person = {"image": jpeg(portrait.pixels)}, {"person_id": portrait.person_id}
        client.post("/enroll", files=files, data=person).raise_for_status()
    first = load_portraits()[0]
    client.post(
        "/enroll", files={"image": jpeg(first.pixels)}, data={"person_id": "no-crop", "gallery": "without"}
    ).raise_for_status()
    imported = client.post(
        f"{GALLERY}/import", content=lines(faces), headers={"Content-Type": "application/x-ndjson"}, timeout=300
    )
    assert json.loads(imported.text.splitlines()[-1])["summary"]["added"] == faces
    return client


def migrate(service: Service, *options: str) -> str:
    result = CliRunner().invoke(app, ["gallery", "migrate", "--url", service.url, *options])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("faces", [60, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_model_is_changed_while_the_service_answers(
    new_service: Callable[..., Service], tmp_path: Path, faces: int
) -> None:
    model = second_model(tmp_path / "models")
    service = new_service()
    service.start()
    client = begun(service, faces)
    before = client.get("/v1/migration").json()
    assert (before["state"], before["other"]) == ("idle", None)
    callers = Callers(service.url)
    with callers.calling():
        output = migrate(service, "--model", str(model))
        ready = client.get("/v1/migration").json()
        # Enrolled and erased between the embedding and the switch.
        client.delete(f"{GALLERY}/persons/made-00001").raise_for_status()
        second = load_portraits()[1]
        client.post(
            "/enroll", files={"image": jpeg(second.pixels[:, ::-1])}, data={"person_id": "late-comer"}
        ).raise_for_status()
        answered_before = len(callers.spaces)
        migrate(service, "--switch")
        switched = client.get("/v1/migration").json()
        time.sleep(1)
    print(f"\n{output}")
    print(
        f"{len(callers.spaces)} identifications during the migration of {faces} faces, {len(callers.wrong)} wrong, "
        f"p50 {np.median(callers.seconds) * 1e3:.0f} ms, longest {max(callers.seconds) * 1e3:.0f} ms"
    )
    assert callers.wrong == []
    assert 0 < answered_before < len(callers.spaces)
    assert set(callers.spaces) == {before["active"]["space_id"], switched["active"]["space_id"]}

    assert ready["state"] == "ready"
    assert ready["faces_done"] == ready["faces_total"] == faces + 3
    # A rotation changes no cosine, so both answer alike; the mirror image of a made crop may be nearer to another.
    assert ready["agreement"]["compared"] == min(200, faces // FACES_A_PERSON + 2)
    assert ready["agreement"]["same"] >= 0.99
    assert ready["agreement"]["right_before"] == pytest.approx(ready["agreement"]["right_after"], abs=0.01)
    assert "same person first" in output
    assert "no-crop" in output
    assert ready["again"] == [{"gallery": "without", "person_id": "no-crop", "faces": 1, "carried": 0}]

    assert switched["state"] == "switched"
    assert switched["active"]["model"] == str(model)
    assert client.get(f"{GALLERY}/persons/made-00001").status_code == 404
    assert client.get(f"{GALLERY}/persons/late-comer").status_code == 200
    summary = client.get(GALLERY).json()
    assert (summary["faces"], summary["space_id"]) == (faces + 1, switched["active"]["space_id"])
    actions = {entry["action"] for entry in client.get("/v1/journal").json()["entries"]}
    assert {"gallery.import", "person.erase", "person.enrol"} <= actions


@pytest.mark.slow
def test_back_erasure_restart_and_removal(new_service: Callable[..., Service], tmp_path: Path) -> None:
    model = second_model(tmp_path / "models")
    service = new_service()
    service.start()
    client = begun(service, 20)
    old_space = client.get("/v1/migration").json()["active"]["space_id"]
    migrate(service, "--model", str(model), "--switch")
    new_space = client.get("/v1/migration").json()["active"]["space_id"]
    assert new_space != old_space
    again = client.post("/v1/migration", json={"model": str(model)})
    assert (again.status_code, again.json()["type"]) == (409, "urn:shrinkface:problem:migration-conflict")

    # Somebody who was carried over is erased: nothing is left of them in either folder.
    dossier = client.get(f"{GALLERY}/persons/eileen-collins/export").json()
    crop = base64.b64decode(dossier["faces"][0]["crop"])
    first_folder = b"".join(path.read_bytes() for path in service.data_dir.glob("gallery.sqlite*"))
    assert crop[200:260] in first_folder
    assert crop[200:260] in stored(service.data_dir / "spaces")
    client.delete(f"{GALLERY}/persons/eileen-collins").raise_for_status()
    left = stored(service.data_dir)
    assert [at for at in range(64, len(crop) - 24, 96) if crop[at : at + 24] in left] == []

    # A restart keeps the new model, and the previous one still hears of erasures.
    service.kill()
    service.start()
    with httpx.Client(base_url=service.url, timeout=60) as restarted:
        assert restarted.get("/health/ready").json()["model"]["space_id"] == new_space
        assert restarted.get("/v1/migration").json()["state"] == "switched"
        first, second = load_portraits()
        found = restarted.post("/identify", files={"image": jpeg(second.pixels)}).json()
        assert found["faces"][0]["decision"]["person_id"] == second.person_id
        restarted.delete(f"{GALLERY}/persons/made-00002").raise_for_status()
        restarted.post("/enroll", files={"image": jpeg(first.pixels)}, data={"person_id": "new-id"}).raise_for_status()

        # Back: who was erased stays so, who came is there, and faces without crops were never lost.
        assert old_space in migrate(service, "--back")
        assert restarted.get("/health/ready").json()["model"]["space_id"] == old_space
        found = restarted.post("/identify", files={"image": jpeg(first.pixels)}).json()
        assert found["faces"][0]["decision"]["person_id"] == "new-id"
        assert restarted.get(f"{GALLERY}/persons/made-00002").status_code == 404
        assert restarted.get("/v1/galleries/without").json()["faces"] == 1
        migrate(service, "--back")
        assert restarted.get("/health/ready").json()["model"]["space_id"] == new_space

        # The previous folder is removed for good, and the service starts without it.
        assert "idle" in migrate(service, "--abandon")
        assert not (service.data_dir / "gallery.sqlite").exists()
        refused = restarted.post("/v1/migration/back")
        assert refused.status_code == 409
    assert service.stop() in (0, -15)
    service.start()
    with httpx.Client(base_url=service.url, timeout=60) as restarted:
        assert restarted.get("/v1/migration").json()["active"] == {"model": str(model), "space_id": new_space}
        found = restarted.post("/identify", files={"image": jpeg(first.pixels)}).json()
        assert found["faces"][0]["decision"]["person_id"] == "new-id"


@pytest.mark.slow
def test_an_interrupted_migration_goes_on_and_can_be_abandoned(
    new_service: Callable[..., Service], tmp_path: Path
) -> None:
    model = second_model(tmp_path / "models")
    service = new_service()
    service.start()
    client = begun(service, 40)
    for wrong in (str(tmp_path / "none.onnx"), str(Settings(_env_file=None).embedder_path), "relative.onnx"):
        assert client.post("/v1/migration", json={"model": wrong}).status_code == 422
    assert client.post("/v1/migration", json={"model": str(model)}).status_code == 202
    service.kill()
    service.start()
    with httpx.Client(base_url=service.url, timeout=60) as restarted:
        found = restarted.get("/v1/migration").json()
        assert (found["state"], found["other"]["model"]) == ("failed", str(model))
        assert restarted.post("/v1/migration/switch").status_code == 409
        migrate(service, "--model", str(model))
        assert restarted.get("/v1/migration").json()["state"] == "ready"
        assert len(list((service.data_dir / "spaces").iterdir())) == 1
        migrate(service, "--abandon")
        assert restarted.get("/v1/migration").json()["state"] == "idle"
        assert list((service.data_dir / "spaces").iterdir()) == []
        assert not (service.data_dir / "active.json").exists()
