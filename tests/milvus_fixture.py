"""A real Milvus server for tests: one that runs already, or the standalone one of the PyPI package `milvus`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_fixture import free_port

# A server's URL, or the interpreter of an environment that has the package `milvus` (it wants an old setuptools).
_URI = "SHRINKFACE_TEST_MILVUS_URI"
_PYTHON = "SHRINKFACE_TEST_MILVUS_PYTHON"
_START_S = 120.0


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server that is ready; a skip without one, unless CI says that there has to be one."""
    if os.environ.get(_URI):
        yield os.environ[_URI]
        return
    python = os.environ.get(_PYTHON)
    if not python:
        pytest.skip(f"no Milvus server: set {_URI} or {_PYTHON}")
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    folder, port = tmp_path_factory.mktemp("milvus"), free_port()
    command = [str(Path(python).parent / "milvus-server"), "--data", str(folder), "--proxy-port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + _START_S
    try:
        while True:
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the Milvus server did not become ready"
            try:
                client = MilvusClient(uri, timeout=5)
                client.list_collections(timeout=5)
                client.close()
                break
            except MilvusException:
                time.sleep(1)
        yield uri
    finally:
        # The package starts the server as a child of its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def drop_collections(uri: str, prefix: str) -> None:
    """Leave nothing of a test on a shared server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, timeout=30)
    for name in client.list_collections():
        if name.startswith(prefix):
            client.drop_collection(name)
    client.close()
