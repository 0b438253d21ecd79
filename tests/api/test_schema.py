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

from service.api.app import create_app
from service.settings import Settings
from tests.api.conftest import build_fake, photo

SNAPSHOT = Path(__file__).with_name("openapi.json")
# Two hundred for a thorough run.
EXAMPLES = int(os.environ.get("SHRINKFACE_TEST_SCHEMA_EXAMPLES", "12"))

PHOTOS = [photo(1), photo(2), photo(1, 2), photo(3)]
schemathesis.openapi.format("binary", st.sampled_from(PHOTOS))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(each).decode() for each in PHOTOS]))


DESCRIPTION = create_app(Settings(_env_file=None), build_fake).openapi()
schema = schemathesis.openapi.from_dict(DESCRIPTION)


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service runs, on a port of its own."""
    folder = tmp_path_factory.mktemp("schema")
    app = create_app(Settings(data_dir=folder / "data", _env_file=None), build_fake)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: schemathesis.Case, base_url: str) -> None:
    case.call_and_validate(base_url=base_url, timeout=30)


def test_the_description_is_the_one_that_was_agreed_on() -> None:
    """A change of the API is a change of this file: `make openapi` writes it."""
    assert json.loads(json.dumps(DESCRIPTION)) == json.loads(SNAPSHOT.read_text())
