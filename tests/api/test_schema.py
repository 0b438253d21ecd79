"""The API against its own description: no answer that is not in it, no failure, whatever is sent."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection

from service.access import KeyFile, Scope
from service.api.app import create_app
from service.settings import Settings
from tests.api.conftest import build_fake, photo
from tests.api.description import describe

SNAPSHOT = Path(__file__).with_name("openapi.json")
# Of a run that may find something new; see `make test-schema`.
THOROUGH = 100
EXAMPLES = int(os.environ.get("SHRINKFACE_TEST_SCHEMA_EXAMPLES", "6"))

PHOTOS = [photo(person) for person in range(1, 5)]
schemathesis.openapi.format("binary", st.sampled_from(PHOTOS))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(each).decode() for each in PHOTOS]))


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """A body of lines is text already."""
    return str(value).encode("utf-8", "replace")


# What a schema cannot say: moments to come, cursors that were handed out.
schemathesis.openapi.format("date-time", st.sampled_from(["2190-01-01T00:00:00Z", "2203-02-03T04:05:06+01:00"]))

DESCRIPTION = create_app(Settings(_env_file=None), build_fake).openapi()
schema = schemathesis.openapi.from_dict(
    DESCRIPTION,
    config=schemathesis.Config.from_dict(
        {
            # A precondition that does not hold, an erased person and a foreign cursor are answers to valid requests.
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "409", "410", "412"]}},
        }
    ),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where a service runs, on a port of its own, and a key to it."""
    folder = tmp_path_factory.mktemp("schema")
    locked = Settings(data_dir=folder / "data", auth="on", _env_file=None)
    _, token = KeyFile(locked.keys_path).create(Scope.ADMIN)
    app = create_app(locked, build_fake)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", token
    finally:
        server.should_exit = True
        thread.join(30)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A few examples are always the same ones; many may find something new.
    derandomize=EXAMPLES < THOROUGH,
    database=None,
)
def test_every_answer_is_documented(case: schemathesis.Case, served: tuple[str, str]) -> None:
    base_url, token = served
    where = getattr(case.meta.phase.data, "parameter_location", None)
    if where is ParameterLocation.HEADER and case.meta.generation.mode is GenerationMode.NEGATIVE:
        # A header that nobody knows is no fault in HTTP, and wrong keys have tests of their own.
        return
    for framing in ("content-length", "transfer-encoding"):
        # Invented ones are no HTTP; a server refuses them before it knows of any call.
        case.headers.pop(framing, None)
    if "if-match" in case.headers:
        # Text that the tool makes does not follow the pattern.
        case.headers["if-match"] = "*"
    if case.meta.generation.mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
        # How many a request may hold is a setting.
        for several in ("images", "items"):
            if several in case.body:
                case.body[several] = case.body[several][:8]
        # So is what there are networks for.
        if case.body.get("attributes"):
            case.body["attributes"] = ["mask"]
        # In multipart the description cannot say which fields exclude each other, or that one of two is needed.
        if case.path == "/enroll" and not {"image", "images"} & case.body.keys():
            case.body["image"] = PHOTOS[0]
        if case.path == "/v1/verify" and not {"reference", "person_id"} & case.body.keys():
            case.body["reference"] = PHOTOS[0]
        if case.path == "/v1/batch/enroll" and "images" in case.body:
            case.body["images"] = PHOTOS[:1] * len(case.body["items"])
        for one, other in (("fpir", "threshold"), ("reference", "person_id")):
            if one in case.body and case.path != "/enroll":
                case.body.pop(other, None)
    # Values in multipart are text, whatever was meant; lines of an import have outcomes of their own; CompreFace's
    # clients may send fields that it does not know.
    lenient = case.media_type != "application/json" or case.path.startswith("/api/v1/")
    case.call_and_validate(
        base_url=base_url,
        headers={"X-API-Key": token, "Authorization": f"Bearer {token}"},
        timeout=30,
        excluded_checks=[negative_data_rejection] if lenient else [],
    )


def test_the_description_is_the_one_that_was_agreed_on() -> None:
    """A change of the API is a change of this file: `make openapi` writes it."""
    assert describe() == json.loads(SNAPSHOT.read_text())
