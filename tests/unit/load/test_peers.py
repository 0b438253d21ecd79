"""The comparison with other services: what is read from their answers, and which pairs are a subset."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from model_training.protocols.pairs import Pair, PairList
from tests.load.peers import __main__ as peers
from tests.load.peers import services
from tests.load.peers.__main__ import app, table
from tests.load.peers.accuracy import some_of_each_fold
from tests.load.peers.services import SERVICES, Materials, NotRunnable, Running
from tests.load.service.processes import Usage
from tests.load.service.protocols import PROTOCOLS, Reading
from tests.load.service.scenarios import Job, Scenario
from tests.load.service.summary import summarised


def materials(folder: Path) -> Materials:
    return Materials(folder / "python", folder, folder, False, folder, None, folder, None, folder, folder)


def box(x: float) -> dict[str, float]:
    return {"x": x, "y": 100.0, "width": 50.0, "height": 50.0}


def test_answers_of_each_kind_of_service() -> None:
    peer = {
        "width": 250, "height": 250,
        "faces": [
            {"box": box(0), "person_id": "bob", "first": "bob"},
            {"box": box(100), "person_id": None, "first": "ann"},
        ],
    }  # fmt: skip
    assert PROTOCOLS["peer"].read(json.dumps(peer).encode()) == Reading(None, "ann")
    near = [{"img_name": "bob", "distance": 0.06}], [{"img_name": "ann", "distance": 0.02}]
    assert PROTOCOLS["deepface"].read(json.dumps({"results": near}).encode()) == Reading("ann", "ann")
    assert PROTOCOLS["deepface"].read(b'{"results": [[]]}') == Reading(None, None)
    assert PROTOCOLS["peer"].no_face(b'{"detail": "no face"}')


def test_a_subset_has_as_many_pairs_of_each_kind_from_each_fold() -> None:
    pairs = [
        Pair(Path(f"{fold}-{same}-{i}-a"), Path(f"{fold}-{same}-{i}-b"), same)
        for fold in range(3)
        for same in (True, False)
        for i in range(5)
    ]
    subset = some_of_each_fold(PairList(pairs, 3), 2)
    assert [(str(pair.first), pair.same) for pair in subset.pairs[:4]] == [
        ("0-True-0-a", True), ("0-True-1-a", True), ("0-False-0-a", False), ("0-False-1-a", False),
    ]  # fmt: skip
    assert len(subset.pairs) == 12
    assert subset.folds == 3


@pytest.mark.parametrize("name", SERVICES)
def test_an_embedding_is_that_of_the_face_in_the_middle(name: str) -> None:
    compared = SERVICES[name]
    vectors = {0.0: [1.0, 0.0], 100.0: [0.0, 1.0]}
    if name == "deepface":
        areas = [({"x": x, "y": 100, "w": 50, "h": 50}, vector) for x, vector in vectors.items()]
        body = {"results": [{"facial_area": area, "embedding": vector} for area, vector in areas]}
    else:
        body = {"faces": [{"box": box(x), "embedding": vector} for x, vector in vectors.items()]}
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=body) if len(asked) == 1 else httpx.Response(422, json={"detail": "no face"})

    with httpx.Client(base_url="http://peer", transport=httpx.MockTransport(answer)) as client:
        found = compared.embed(client, b"picture")
        assert found is not None
        np.testing.assert_array_equal(found, [0.0, 1.0])
        assert compared.embed(client, b"picture") is None
    assert asked == [compared.embeddings[0]] * 2
    assert compared.similarity(found, found) > compared.similarity(found, np.array([1.0, 0.0], dtype=np.float32))


def test_a_gallery_of_people_and_drawn_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn rows get the length of the people's, are searched like them, and have names of their own."""
    spec = importlib.util.spec_from_file_location("serving", Path(services.__file__).parent / "serving.py")
    assert spec is not None and spec.loader is not None
    serving = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serving)
    vectors = {"ann": [0.0, 2.0, 0.0], "bob": [4.0, 0.0, 0.0], "probe": [0.1, 0.0, 3.0]}

    def analyse(content: bytes) -> Any:
        vector = np.array(vectors[content.decode()], dtype=np.float32)
        return serving.Analysed(250, 250, [serving.Found((100.0, 100.0, 50.0, 50.0), vector)])

    for name in ("ann", "bob"):
        (tmp_path / "people" / name).mkdir(parents=True)
        (tmp_path / "people" / name / "0.jpg").write_text(name)
    np.save(tmp_path / "drawn.npy", np.array([[0.6, 0.8, 0], [0, 0, 1]], dtype=np.float32))
    monkeypatch.setattr(serving.uvicorn, "run", lambda *_, **__: None)
    monkeypatch.setattr("sys.path", [*sys.path])
    given = argparse.Namespace(
        port=0, workers=1, enrolled=tmp_path / "people", keep=tmp_path / "keep.npz", drawn=tmp_path / "drawn.npy"
    )
    monkeypatch.setenv("PEER_GALLERY", "")
    serving.serve("", analyse, given)
    np.testing.assert_allclose(np.load(tmp_path / "keep.npy"), [[0, 2, 0], [4, 0, 0], [1.8, 2.4, 0], [0, 0, 3]])
    client = TestClient(serving.application(analyse, lambda gallery, probe: gallery @ probe, 10.0))
    assert client.get("/ready").json() == {"faces": 4}
    answers = [client.post("/identify", files={"image": name.encode()}).json()["faces"][0] for name in vectors]
    assert [each["first"] for each in answers] == ["drawn-0000000", "bob", "drawn-0000001"]
    assert [each["person_id"] for each in answers] == [None, "bob", None]


def test_who_takes_too_long_for_one_picture_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, httpserver_port: int
) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"picture")
    job = Job(Scenario("s", "", 1, callers=1), "peer", "127.0.0.1", httpserver_port, [(str(picture), "")])
    peers._try_one(job)
    monkeypatch.setattr(peers, "_SLOWEST_S", 0.0)
    with pytest.raises(NotRunnable, match="one picture took 0 s"):
        peers._try_one(job)
    monkeypatch.setattr(peers, "_PATIENCE_S", 0.001)
    with pytest.raises(NotRunnable, match="no answer to one picture"):
        peers._try_one(job)


@pytest.fixture
def httpserver_port() -> Iterator[int]:
    """A server that takes 20 ms for an answer."""

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(0.02)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_service_that_cannot_be_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers' environment is not there, and ours answers by hand; both stand in the table."""

    @contextmanager
    def absent(materials: Materials) -> Iterator[Running]:
        raise NotRunnable(f"there is no {materials.python.name}")
        yield

    rows = [("identify", i / 10, 20.0, "ok", "identified") for i in range(100)]
    noted = {
        "began_at": 0.0, "counted_from_s": 0.0, "counted_to_s": 10.0, "rows": rows, "late_ms": 0.0,
        "generator_cpu_s": 1.0, "exposed": ["", ""],
    }  # fmt: skip
    ours = {"peer": "ours", "title": "ShrinkFace", **summarised(Scenario("s", "", 10, callers=1), noted, Usage())}
    peer = {**ours, "peer": "insightface", "title": "other", "requests_per_s": 4.0}
    peer["verification"] = {"accuracy_percent": 99.0, "std_percent": 0.5, "pictures": 10, "pictures_without_face": 1}
    text = table([ours, peer, {"peer": "x", "title": "third", "not_run": "no\nweights"}])
    assert "| ShrinkFace | 10.0 | 1.0 times, - | 20, 20 | 0 | 0 | nan | - | - |" in text
    assert "| other | 4.0 | 2.5 times, - | 20, 20 | 0 | 0 | nan | 99.00 % +- 0.50 | 1 of 10 |" in text
    assert "| third | not run: no weights |" in text
    speed, accuracy = tmp_path / "speed.json", tmp_path / "accuracy.json"
    speed.write_text(json.dumps({"records": [ours, {**peer, "peer": "ours-same", "verification": None}]}))
    accuracy.write_text(json.dumps({"records": [{"peer": "ours", "verification": peer["verification"]}]}))
    shown = CliRunner().invoke(app, ["render", str(speed), str(accuracy)])
    assert "| ShrinkFace | 10.0 | 1.0 times, 0.4 times | 20, 20 | 0 | 0 | nan | 99.00 % +- 0.50 |" in shown.output
    with (
        pytest.raises(NotRunnable, match="python"),
        absent(materials(tmp_path)),
    ):
        pass
