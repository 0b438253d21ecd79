"""Who may do what: keys and scopes on every route."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.access import KeyFile, Scope
from service.api.app import create_app
from service.settings import Settings
from tests.api.conftest import build_fake, photo
from tests.api.test_galleries import problem

GALLERY = "/v1/galleries/staff"
PERSON = f"{GALLERY}/persons/ada"
# Method and path of every call that needs a key, and the least scope that it needs.
NEEDED = {
    Scope.IDENTIFY: [
        ("POST", "/identify"), ("POST", "/v1/verify"), ("POST", "/v1/detect"), ("POST", "/v1/embeddings"),
        ("POST", "/v1/batch/identify"), ("GET", "/v1/galleries"), ("GET", GALLERY), ("GET", f"{GALLERY}/persons"),
        ("GET", PERSON), ("GET", f"{PERSON}/faces"), ("GET", f"{PERSON}/faces/f"),
    ],
    Scope.ENROLL: [
        ("POST", "/enroll"), ("POST", "/v1/batch/enroll"),
        ("POST", f"{GALLERY}/persons"), ("PATCH", PERSON), ("DELETE", PERSON),
        ("GET", f"{PERSON}/faces/f/crop"), ("DELETE", f"{PERSON}/faces/f"),
    ],
    Scope.ADMIN: [
        ("POST", "/v1/galleries"), ("PATCH", GALLERY), ("DELETE", GALLERY), ("GET", f"{PERSON}/export"),
        ("GET", f"{GALLERY}/export"), ("POST", f"{GALLERY}/import"), ("GET", "/v1/journal?gallery=staff"),
        ("GET", "/v1/migration"), ("POST", "/v1/migration"), ("DELETE", "/v1/migration"),
        ("POST", "/v1/migration/switch"), ("POST", "/v1/migration/back"),
    ],
}  # fmt: skip
CALLS = [(method, path, scope) for scope, calls in NEEDED.items() for method, path in calls]
ORDER = [Scope.IDENTIFY, Scope.ENROLL, Scope.ADMIN]


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:
    """Keys of each scope, and `confined` and `foreign` ones of all scopes for one gallery."""
    keys = KeyFile(settings.keys_path)
    made = {scope.value: keys.create(scope)[1] for scope in ORDER}
    made["confined"] = keys.create(Scope.ADMIN, galleries=["staff"])[1]
    made["foreign"] = keys.create(Scope.ADMIN, galleries=["visitors"])[1]
    return made


@pytest.fixture
def locked(settings: Settings, tokens: dict[str, str]) -> Iterator[TestClient]:
    with TestClient(
        create_app(settings.model_copy(update={"auth": "on"}), build_fake), raise_server_exceptions=False
    ) as client:
        yield client


def send(client: TestClient, method: str, path: str, token: str | None):
    headers = {} if token is None else {"X-API-Key": token}
    if path.endswith("/import"):
        return client.post(path, content=b"", headers={**headers, "content-type": "application/x-ndjson"})
    body = {
        ("POST", "/v1/galleries"): {"json": {"name": "staff"}},
        ("POST", "/v1/migration"): {"json": {"model": "/models/new.onnx"}},
        ("POST", f"{GALLERY}/persons"): {"json": {"person_id": "bob"}},
        ("PATCH", GALLERY): {"json": {}},
        ("PATCH", PERSON): {"json": {}},
        ("POST", "/v1/batch/identify"): {"files": {"images": photo(1)}, "data": {"gallery": "staff"}},
        ("POST", "/v1/verify"): {"files": {"image": photo(1), "reference": photo(1)}},
        ("POST", "/v1/detect"): {"files": {"image": photo(1)}},
        ("POST", "/v1/embeddings"): {"files": {"image": photo(1)}},
        ("POST", "/v1/batch/enroll"): {"json": {"gallery": "staff", "items": [{}]}},
        ("POST", "/identify"): {"files": {"image": photo(1)}, "data": {"gallery": "staff"}},
        ("POST", "/enroll"): {"files": {"image": photo(1)}, "data": {"gallery": "staff"}},
    }
    return client.request(method, path, headers=headers, **body.get((method, path), {}))


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_a_call_needs_a_key_of_its_scope_and_its_gallery(
    locked: TestClient, tokens: dict[str, str], method: str, path: str, scope: Scope
) -> None:
    refused = send(locked, method, path, None)
    assert problem(refused) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert problem(send(locked, method, path, "sf_00000000_" + "x" * 43)) == (401, "unauthenticated")
    for given in ORDER:
        answer = send(locked, method, path, tokens[given.value])
        if ORDER.index(given) < ORDER.index(scope):
            assert problem(answer) == (403, "forbidden")
        else:
            assert answer.status_code not in (401, 403), answer.text
    if "staff" in path:
        assert problem(send(locked, method, path, tokens["foreign"])) == (403, "forbidden")


def test_every_documented_call_is_among_them(locked: TestClient) -> None:
    known = {(method, path.partition("?")[0]) for method, path, _ in CALLS}
    values = {"{gallery}": "staff", "{person_id}": "ada", "{face_id}": "f"}
    open_to_all = ("/health/live", "/health/ready", "/metrics")
    for path, operations in locked.get("/openapi.json").json()["paths"].items():
        if path in open_to_all or path.startswith("/api/v1/"):
            continue
        filled = path
        for placeholder, value in values.items():
            filled = filled.replace(placeholder, value)
        for method in operations:
            assert (method.upper(), filled) in known


def test_a_key_for_one_gallery_sees_no_other(locked: TestClient, tokens: dict[str, str]) -> None:
    for name in ("staff", "visitors"):
        bearer = {"Authorization": f"Bearer {tokens['admin']}"}
        assert locked.post("/v1/galleries", json={"name": name}, headers=bearer).status_code == 201
    confined = {"X-API-Key": tokens["confined"]}
    seen = locked.get("/v1/galleries", headers=confined).json()["galleries"]
    assert [each["name"] for each in seen] == ["staff"]
    assert problem(locked.get("/v1/journal", headers=confined)) == (403, "forbidden")
    items = [{"gallery": name, "image": base64.b64encode(photo(1)).decode()} for name in ("visitors", "staff")]
    outcomes = locked.post("/v1/batch/enroll", json={"items": items}, headers=confined).json()["items"]
    assert [each["status"] for each in outcomes] == [403, 201]


def test_the_journal_names_the_key(locked: TestClient, tokens: dict[str, str]) -> None:
    admin = {"X-API-Key": tokens["admin"]}
    key_id = tokens["admin"].split("_")[1]
    locked.post("/enroll", files={"image": photo(1)}, data={"person_id": "ada"}, headers=admin)
    locked.delete("/v1/galleries/default/persons/ada", headers=admin)
    entries = locked.get("/v1/journal", headers=admin).json()["entries"]
    assert [(entry["actor"], entry["action"], entry["person_id"]) for entry in entries] == [
        (key_id, "person.erase", "ada"),
        (key_id, "person.enrol", "ada"),
    ]
    first = locked.get("/v1/journal", params={"limit": 1}, headers=admin).json()
    second = locked.get("/v1/journal", params={"limit": 1, "cursor": first["next_cursor"]}, headers=admin).json()
    assert [*first["entries"], *second["entries"]] == entries
    assert second["next_cursor"] is None


def test_what_a_key_may_do_in_a_while_is_bounded(settings: Settings, tokens: dict[str, str]) -> None:
    # Five in an hour: no window may end while the test runs, however slowly.
    limited = settings.model_copy(update={"auth": "on", "rate_limit_per_s": 1 / 720, "rate_limit_burst_s": 3600.0})
    with TestClient(create_app(limited, build_fake)) as client:
        admin, other = {"X-API-Key": tokens["admin"]}, {"X-API-Key": tokens["enroll"]}
        answers = [client.get("/v1/galleries", headers=admin) for _ in range(8)]
        assert [answer.status_code for answer in answers[:5]] == [200] * 5
        assert problem(answers[-1]) == (429, "rate-limited")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/v1/galleries", headers=other).status_code == 200
        assert client.get("/health/live").status_code == 200
        # A batch counts as many requests as it has pictures.
        files = [("images", photo(1))] * 5
        assert problem(client.post("/v1/batch/identify", files=files, headers=other)) == (429, "rate-limited")
