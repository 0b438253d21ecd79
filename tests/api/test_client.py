"""The client against the API: the one over real sockets, the other within the process as `shrinkface --local` does."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel

from service.access import KeyFile, Scope
from service.api.app import create_app
from service.cli.connection import in_process
from service.client import UNCHANGED, InvalidArgument, NewPerson, ProblemError, ShrinkFace
from service.client.models import Answer, BatchItem
from service.settings import Settings
from tests.api.conftest import DIMENSION, build_fake, photo
from tests.blocking_client import BlockingClient

Open = Callable[..., AbstractContextManager[Any]]


@contextmanager
def over_sockets(settings: Settings, api_key: str | None = None) -> Iterator[ShrinkFace]:
    app = create_app(settings, build_fake)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with ShrinkFace(f"http://127.0.0.1:{port}", api_key) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextmanager
def within_the_process(settings: Settings, api_key: str | None = None) -> Iterator[BlockingClient]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(in_process(settings, build_fake)) as client,
    ):
        if api_key is not None:
            client._http.headers["X-API-Key"] = api_key
        yield BlockingClient(portal, client)


@pytest.fixture(params=[over_sockets, within_the_process])
def opened(request: pytest.FixtureRequest) -> Open:
    return request.param


@pytest.fixture
def service(opened: Open, settings: Settings) -> Iterator[Any]:
    with opened(settings) as client:
        yield client


def subclasses(of: type) -> set[type]:
    return {of}.union(*(subclasses(each) for each in of.__subclasses__()))


def parts(model: type[BaseModel]) -> set[type]:
    """Models that a model is made of, and itself."""
    found, waiting = {model}, [field.annotation for field in model.model_fields.values()]
    while waiting:
        annotation: Any = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, Answer):
            found |= parts(annotation)
        else:
            waiting += getattr(annotation, "__args__", ())
    return found


def test_models_have_every_member_of_every_answer(
    opened: Open, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[type] = set()

    def strictly(name: str) -> Any:
        lenient = getattr(BaseModel, name).__func__

        def validate(model: type[Answer], content: Any, **_: Any) -> Answer:
            seen.update(parts(model))
            return lenient(model, content, extra="forbid")

        return classmethod(validate)

    for name in ("model_validate", "model_validate_json"):
        monkeypatch.setattr(Answer, name, strictly(name), raising=False)
    with opened(settings) as client:
        _every_call(client)
    assert seen == subclasses(Answer) - {Answer, BatchItem}


def _every_call(client: Any) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    assert client.ready().model.space_id == "sf1-fake"
    created = client.create_gallery("g", target_fpir=0.01, quality_gate="off", keep_crops=True)
    assert (created.settings.target_fpir, created.settings.keep_crops) == (0.01, True)
    first = client.enrol(
        [photo(1), photo(2)], person_id="ann", name="Ann", metadata={"floor": 3}, gallery="g", expires_at=expires_at
    )
    assert (first.person.name, first.person.metadata, len(first.faces)) == ("Ann", {"floor": 3}, 2)
    twin = client.enrol(photo(1), person_id="twin", gallery="g")
    assert [conflict.person_id for conflict in twin.conflicts] == ["ann"]

    found = client.identify(photo(2, 9), gallery="g", top_k=2, fpir=0.05, max_faces=2, exact=True, person_ids=["ann"])
    assert [face.decision.person_id for face in found.faces] == ["ann", None]
    assert found.faces[0].matches[0].name == "Ann"
    assert client.identify(photo(9), gallery="g", threshold=-1.0).faces[0].decision.identified
    assert client.verify(photo(1), photo(1)).same
    known = client.verify(photo(2), person_id="ann", gallery="g", fmr=1e-4)
    assert (known.same, known.reference) == (True, None)
    assert client.detect(photo(), max_faces=1).faces == ()
    assert len(client.detect(photo(1, 2)).faces) == 2
    assert len(client.embeddings(photo(1)).faces[0].embedding) == DIMENSION
    assert [item.status for item in client.identify_many([photo(1), photo()], gallery="g")] == [200, 422]
    assert [item.status for item in client.enrol_many([NewPerson(photo(5), "eve"), NewPerson(photo())])] == [201, 422]

    assert {each.name for each in client.galleries()} == {"default", "g"}
    assert client.gallery("g").faces == 3
    assert [person.person_id for person in client.persons("g")] == ["ann", "twin"]
    assert client.add_person("g", "bob", name="Bob", metadata={"floor": 4}).face_ids == ()
    assert client.person("g", "ann").revision < client.person("g", "bob").revision
    assert client.update_person("g", "bob", name=None).name is None
    faces = client.faces("g", "ann")
    assert faces[0].expires_at == expires_at.replace(microsecond=faces[0].expires_at.microsecond)
    assert client.crop("g", "ann", faces[0].face_id).startswith(b"\x89PNG")
    dossier = client.export_person("g", "ann")
    assert len(base64.b64decode(dossier.faces[0].embedding)) == 4 * DIMENSION
    assert [entry.action for entry in dossier.journal][-1] == "person.enrol"
    bad = json.dumps({"person_id": "cid", "images": [base64.b64encode(each).decode() for each in (photo(8), photo())]})
    lines = [*client.export_gallery("g"), bad.encode(), b"{"]
    outcomes: list[Any] = []
    summary = client.import_gallery("copy", lines, on_outcome=outcomes.append)
    assert (summary.persons, summary.added, summary.failed, summary.pictures_skipped) == (5, 4, 1, 1)
    assert [outcome.status for outcome in outcomes] == ["stored", "present", "stored", "stored", "failed"]
    assert outcomes[3].skipped[0].problem == "no-face"
    assert client.delete_face("g", "ann", faces[0].face_id).faces == 1
    assert client.delete_person("g", "ann").crops == 1
    assert client.configure_gallery("g", keep_crops=False).settings.target_fpir == 0.01
    assert client.delete_gallery("g").persons == 2
    assert next(iter(client.journal(gallery="g"))).action == "gallery.erase"


def test_a_problem_says_what_is_wrong(service: Any) -> None:
    with pytest.raises(ProblemError) as no_face:
        service.enrol([photo(1), photo()])
    assert (no_face.value.code, no_face.value.status, no_face.value.extra) == ("no-face", 422, {"picture": 1})
    assert no_face.value.title == "No face was found"
    assert len(no_face.value.request_id) == 32
    with pytest.raises(ProblemError, match=r"\(invalid-request\)"):
        service.verify(photo(1))
    with pytest.raises(ProblemError, match=r"\(image-format-unsupported\)"):
        service.identify(b"GIF89a....")
    with pytest.raises(ProblemError, match=r"\(crop-not-kept\)"):
        enrolled = service.enrol(photo(1))
        service.crop("default", enrolled.person.person_id, enrolled.faces[0].face_id)


def test_pictures_may_be_files(service: Any, tmp_path: Path) -> None:
    (tmp_path / "ann.png").write_bytes(photo(1))
    service.enrol(tmp_path / "ann.png", person_id="ann")
    service.enrol([str(tmp_path / "ann.png"), photo(2)], person_id="ann", on_existing="extend")
    assert len(service.faces("default", "ann")) == 2
    assert service.identify(str(tmp_path / "ann.png")).faces[0].decision.person_id == "ann"
    with pytest.raises(FileNotFoundError):
        service.identify(tmp_path / "absent.png")


def test_persons_come_page_by_page_and_by_what_is_known_of_them(service: Any) -> None:
    for number in range(5):
        service.add_person("g", f"p{number}", name=f"Person {number}", metadata={"floor": number % 2, "team": "a b"})
    assert [person.person_id for person in service.persons("g", page_size=2)] == [f"p{n}" for n in range(5)]
    assert [person.person_id for person in service.persons("g", name="N 3")] == ["p3"]
    odd = service.persons("g", metadata={"floor": 1, "team": "a b"}, page_size=1)
    assert [person.person_id for person in odd] == ["p1", "p3"]
    assert len(list(service.journal(page_size=2))) == 5
    with pytest.raises(ProblemError, match="gallery-not-found"):
        list(service.persons("nowhere"))


def test_many_pictures_go_in_batches_and_keep_their_numbers(service: Any, settings: Settings) -> None:
    people = [NewPerson([photo(n), photo(n + 10)], f"p{n}") for n in range(3)]
    items = list(service.enrol_many(people, batch=4))
    assert [(item.index, item.result.person.person_id) for item in items] == [(0, "p0"), (1, "p1"), (2, "p2")]
    assert all(face.already for item in service.enrol_many(people) for face in item.result.faces)
    pictures = (photo(n) if n != 3 else b"no picture" for n in (0, 1, 2, 3, 11))
    found = list(service.identify_many(pictures, batch=2))
    assert [item.index for item in found] == [0, 1, 2, 3, 4]
    assert [item.result.faces[0].decision.person_id for item in found if item.result] == ["p0", "p1", "p2", "p1"]
    assert found[0].error is None
    assert (found[3].result, found[3].error.code) == (None, "image-format-unsupported")
    assert list(service.identify_many([])) == []
    too_many = [photo(1)] * (settings.max_batch + 1)
    with pytest.raises(ProblemError, match="body-invalid"):
        list(service.identify_many(too_many, batch=1_000))
    with pytest.raises(ProblemError, match=f"at most {settings.max_batch}"):
        list(service.enrol_many([NewPerson(too_many)], batch=1_000))


def test_attributes_are_asked_for_by_name(service: Any) -> None:
    picture = photo(1)
    assert service.detect(picture).faces[0].mask is None
    told = service.detect(picture, attributes=["mask"]).faces[0].mask
    assert told.worn == (told.probability >= 0.5)
    asked = [
        service.embeddings(picture, attributes=["mask"]),
        service.identify(picture, attributes=["mask"]),
        service.enrol(picture, attributes=["mask"]),
        next(iter(service.identify_many([picture], attributes=["mask"]))).result,
    ]
    assert [answer.faces[0].mask for answer in asked] == [told] * 4
    answer = service.verify(picture, picture, attributes=["mask"])
    assert answer.face.mask == answer.reference.mask == told
    assert answer.model.attributes == {"mask": "reds"}
    scored = answer.face.attributes["mask"]
    assert (scored.kind, scored.value, scored.probability, scored.threshold) == (
        "score",
        told.worn,
        told.probability,
        0.5,
    )
    with pytest.raises(ProblemError, match="attribute-unavailable") as refused:
        service.detect(picture, attributes=["age"])
    assert refused.value.extra["available"] == ["mask"]


def test_a_change_of_what_has_changed_is_refused(service: Any) -> None:
    read = service.add_person("g", "ann", name="Ann")
    changed = service.update_person("g", "ann", metadata={"floor": 1}, if_match=read.revision)
    assert (changed.name, changed.metadata) == ("Ann", {"floor": 1})
    for stale in (
        lambda: service.update_person("g", "ann", name="Anna", if_match=read.revision),
        lambda: service.delete_person("g", "ann", if_match=read.revision),
        lambda: service.delete_gallery("g", if_match=10_000),
        lambda: service.configure_gallery("g", keep_crops=True, if_match=10_000),
    ):
        with pytest.raises(ProblemError, match="revision-mismatch"):
            stale()
    assert service.delete_person("g", "ann", if_match=changed.revision).persons == 1


def test_settings_that_are_not_given_stay(service: Any) -> None:
    service.create_gallery("g", target_fpir=0.02, quality_gate="strict")
    assert service.configure_gallery("g", target_fpir=None).settings.quality_gate == "strict"
    assert service.gallery("g").settings.target_fpir is None
    assert service.configure_gallery("g", target_fpir=UNCHANGED, quality_gate=None).settings.quality_gate is None


def test_the_same_key_enrols_once(service: Any) -> None:
    first = service.enrol(photo(1), name="Ann", idempotency_key="k1")
    assert service.enrol(photo(1), name="Ann", idempotency_key="k1").person == first.person
    assert service.gallery("default").persons == 1
    with pytest.raises(ProblemError, match="idempotency-key-reused"):
        service.enrol(photo(2), name="Ann", idempotency_key="k1")


def test_a_person_whose_id_is_dots_is_not_the_gallery(service: Any) -> None:
    service.enrol(photo(1), gallery="g")
    for name in ("..", ".", ""):
        with pytest.raises(InvalidArgument):
            service.delete_person("g", name)
    with pytest.raises(ProblemError):
        service.delete_person("g", "../../g")
    assert service.gallery("g").persons == 1


def test_a_gallery_moves_from_one_to_another(service: Any) -> None:
    for number in range(4):
        service.enrol(photo(number), person_id=f"p{number}", gallery="a")
    lines = list(service.export_gallery("a"))
    assert [json.loads(line)["person_id"] for line in service.export_gallery("a", after="p1")] == ["p2", "p3"]
    assert service.import_gallery("b", [line + b"\n" for line in lines]).added == 4
    assert service.import_gallery("b", iter(lines)).present == 4
    assert list(service.export_gallery("b")) == lines
    with pytest.raises(ProblemError, match="gallery-not-found"):
        list(service.export_gallery("c"))
    with pytest.raises(ProblemError, match="invalid-request"):
        service.import_gallery("no name", lines)


def test_keys_open_what_they_are_for(opened: Open, settings: Settings) -> None:
    guarded = settings.model_copy(update={"auth": "on"})
    keys = KeyFile(guarded.keys_path)
    _, looking = keys.create(Scope.IDENTIFY, galleries=["g"])
    for token, code in ((None, "unauthenticated"), ("sf_0_wrong", "unauthenticated"), (looking, "forbidden")):
        with opened(guarded, token) as client:
            with pytest.raises(ProblemError) as refused:
                client.enrol(photo(1), gallery="g")
            assert refused.value.code == code
            # Large, and refused before it is read.
            with pytest.raises(ProblemError, match=code):
                client.import_gallery("g", (b"%020d" % number * 500 for number in range(500)))
            if token == looking:
                assert client.identify(photo(1), gallery="g").gallery_size == 0
