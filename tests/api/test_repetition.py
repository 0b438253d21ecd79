"""Requests with an Idempotency-Key: repeated, altered, at the same time, and after a restart."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.idempotency import Answer, Once, answered_once
from service.domain import Overloaded, PersonErased, PersonNotFound
from service.journal import LogJournal
from service.ports import Replay
from service.settings import Settings
from tests.api.conftest import build_fake, photo
from tests.api.test_galleries import problem

KEY = {"Idempotency-Key": "7f1c-once"}


def enrol(client: TestClient, *people: int, headers: dict[str, str] = KEY, **fields: str):
    files = [("images", photo(person)) for person in people]
    return client.post("/enroll", files=files, data=fields, headers=headers)


def test_a_repetition_gets_the_same_answer_and_stores_nothing(client: TestClient) -> None:
    first = enrol(client, 1, 2, name="Ada", metadata='{"a": 1}')
    assert first.status_code == 201
    again = enrol(client, 1, 2, name="Ada", metadata='{"a": 1}')
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    for header in ("location", "etag"):
        assert again.headers[header] == first.headers[header]
    assert client.get("/v1/galleries/default").json()["faces"] == 2
    other = enrol(client, 3, headers={"Idempotency-Key": "another"})
    assert other.json()["person"]["person_id"] != first.json()["person"]["person_id"]


@pytest.mark.parametrize("change", [{"name": "Eve"}, {"metadata": "{}"}], ids=["name", "metadata"])
def test_another_request_under_the_same_key_is_refused(client: TestClient, change: dict[str, str]) -> None:
    fields = {"name": "Ada", "metadata": '{"a": 1}'}
    enrol(client, 1, **fields)
    assert problem(enrol(client, 1, **{**fields, **change})) == (409, "idempotency-key-reused")
    assert problem(enrol(client, 2, **fields)) == (409, "idempotency-key-reused")
    assert client.get("/v1/galleries/default").json()["faces"] == 1


def test_a_failure_is_not_kept(client: TestClient) -> None:
    faceless = client.post("/enroll", files={"image": photo()}, headers=KEY)
    assert problem(faceless) == (422, "no-face")
    assert enrol(client, 1).status_code == 201


def test_json_and_multipart_keys_must_be_acceptable(client: TestClient) -> None:
    for key in ("", "x" * 256, "t\tab"):
        answer = enrol(client, 1, headers={"Idempotency-Key": key})
        assert problem(answer) == (422, "invalid-request")


def test_after_a_restart_the_answer_is_the_same(settings: Settings) -> None:
    with TestClient(create_app(settings, build_fake)) as client:
        first = enrol(client, 1, name="Ada")
    with TestClient(create_app(settings, build_fake)) as client:
        again = enrol(client, 1, name="Ada")
        assert (again.status_code, again.json()) == (201, first.json())
        assert client.get("/v1/galleries/default").json()["faces"] == 1


def test_after_an_erasure_nobody_is_enrolled_again(client: TestClient) -> None:
    person_id = enrol(client, 1, name="Ada").json()["person"]["person_id"]
    receipt = client.delete(f"/v1/galleries/default/persons/{person_id}").json()
    assert receipt["kept_answers"] == 1
    assert problem(enrol(client, 1, name="Ada")) == (410, "person-erased")
    assert client.get("/v1/galleries/default").json()["faces"] == 0


def test_names_in_a_repeated_answer_are_those_of_now(client: TestClient) -> None:
    client.post("/enroll", files={"image": photo(1)}, data={"person_id": "twin", "name": "Twin"})
    first = enrol(client, 1, person_id="ada", name="Ada").json()
    assert [conflict["name"] for conflict in first["conflicts"]] == ["Twin"]
    client.patch("/v1/galleries/default/persons/ada", json={"name": "Ada L."})
    again = enrol(client, 1, person_id="ada", name="Ada").json()
    assert (again["person"]["name"], again["conflicts"]) == ("Ada L.", first["conflicts"])
    client.delete("/v1/galleries/default/persons/twin")
    assert enrol(client, 1, person_id="ada", name="Ada").json()["conflicts"] == []


def test_at_the_same_time_one_is_done_and_the_others_are_told_to_wait(client: TestClient) -> None:
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(enrol(client, *range(1, 5)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = {answer.status_code for answer in answers}
    assert 201 in kinds
    assert kinds <= {201, 409}
    assert all(problem(answer)[1] == "idempotency-in-progress" for answer in answers if answer.status_code == 409)
    assert (
        client.get("/v1/galleries/default").json() | {"faces": 4, "persons": 1}
        == client.get("/v1/galleries/default").json()
    )


@pytest.mark.anyio
@pytest.mark.parametrize(("trouble", "told"), [(Overloaded, Overloaded), (PersonNotFound, PersonErased)])
async def test_a_gallery_that_does_not_answer_is_no_erased_person(trouble: type, told: type) -> None:
    once = Once("key", "fingerprint")
    journal = LogJournal()
    await journal.keep("key", Replay("fingerprint", "g", "ada", b'{"status": 201, "headers": {}, "body": {}}'))

    async def complete(_: dict) -> dict:
        raise trouble("it happens")

    async def work(_: object) -> Answer:
        raise AssertionError("it has been done")

    running = SimpleNamespace(in_progress=set(), journal=journal)
    with pytest.raises(told):
        await answered_once(running, once, work, complete)
    assert running.in_progress == set()
