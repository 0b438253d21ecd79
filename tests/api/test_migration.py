"""Who may change the model, and what a gallery that cannot change it answers."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from service.access import KeyFile, Scope
from service.api.app import create_app
from service.settings import Settings
from tests.api.conftest import build_fake

CALLS = [
    ("GET", "/v1/migration"),
    ("POST", "/v1/migration/switch"),
    ("POST", "/v1/migration/back"),
    ("DELETE", "/v1/migration"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_gallery_that_cannot_change_its_model_says_so(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:shrinkface:problem:migration-unsupported")


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": "a/relative.onnx"}, {"model": "/a\0b"}, {"model": 5}])
def test_a_model_is_an_absolute_path_or_a_name(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/v1/migration", json=body).status_code == 422


@pytest.mark.parametrize(("method", "path"), [*CALLS, ("POST", "/v1/migration")])
def test_it_takes_an_admin_of_all_galleries(settings: Settings, method: str, path: str) -> None:
    locked = settings.model_copy(update={"auth": "on"})
    keys = KeyFile(locked.keys_path)
    tokens = [
        keys.create(Scope.ENROLL)[1],
        keys.create(Scope.ADMIN, galleries=("staff",))[1],
        keys.create(Scope.ADMIN)[1],
    ]
    with TestClient(create_app(locked, build_fake)) as client:
        statuses = [
            client.request(
                method, path, headers={"X-API-Key": token}, json={"model": "/a.onnx"} if path[-1] == "n" else None
            ).status_code
            for token in tokens
        ]
    assert statuses == [403, 403, 409]
