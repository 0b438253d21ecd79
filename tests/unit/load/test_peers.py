"""The comparison with other services: what is read from their answers, and which pairs are a subset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from model_training.protocols.pairs import Pair, PairList
from tests.load.peers.__main__ import app, table
from tests.load.peers.accuracy import some_of_each_fold
from tests.load.peers.services import SERVICES, Materials, NotRunnable, Running
from tests.load.service.processes import Usage
from tests.load.service.protocols import PROTOCOLS, Reading
from tests.load.service.scenarios import Scenario
from tests.load.service.summary import summarised


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
    assert "| ShrinkFace | 10.0 | 1.0 times | 20, 20 | 0 | 0 | nan | - | - |" in text
    assert "| other | 4.0 | 2.5 times | 20, 20 | 0 | 0 | nan | 99.00 % +- 0.50 | 1 of 10 |" in text
    assert "| third | not run: no weights |" in text
    record = tmp_path / "peers.json"
    record.write_text(json.dumps({"records": [ours]}))
    shown = CliRunner().invoke(app, ["render", str(record)])
    assert "| ShrinkFace | 10.0 |" in shown.output
    with (
        pytest.raises(NotRunnable, match="python"),
        absent(Materials(tmp_path / "python", tmp_path, tmp_path, False, tmp_path, tmp_path, tmp_path)),
    ):
        pass
