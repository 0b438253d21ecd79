"""The Dockerfiles, and the two scripts that they use."""

from __future__ import annotations

import fnmatch
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.common import PORT, ROOT, UID, VERSION, settings_of
from tests.redis_fixture import free_port

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
SERVING = [path for path in DOCKERFILES if path.name != "Dockerfile.train"]
WITH_NAMES = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
SERVING_WITH_NAMES = pytest.mark.parametrize("path", SERVING, ids=lambda path: path.name)


def instructions(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines()) if word]


def final_stage(path: Path) -> dict[str, str]:
    """The last value of each instruction of the stage that the image is."""
    found = instructions(path)
    start = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return dict(found[start:])


@WITH_NAMES
def test_bases_have_a_version_and_stages_are_two(path: Path) -> None:
    arguments = dict(rest.partition("=")[::2] for word, rest in instructions(path) if word == "ARG")
    bases = [rest.split()[0] for word, rest in instructions(path) if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        image = arguments[base.strip("${}")]
        _, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+", tag), image


@WITH_NAMES
def test_nobody_is_root_and_signals_arrive(path: Path) -> None:
    final = final_stage(path)
    assert final["USER"] == f"{UID}:{UID}"
    assert final["STOPSIGNAL"] == "SIGTERM"
    # The exec form: a shell would keep the signal to itself.
    assert isinstance(json.loads(final["ENTRYPOINT"]), list)
    assert isinstance(json.loads(final["CMD"]), list)
    for word in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{word}=" in final["LABEL"]
    assert ("ARG", f"VERSION={VERSION}") in instructions(path)


@WITH_NAMES
def test_onnxruntime_reports_to_nobody(path: Path) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in shlex.split(final_stage(path)["ENV"])


@SERVING_WITH_NAMES
def test_the_service_is_what_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = final_stage(path)
    assert json.loads(final["ENTRYPOINT"]) + json.loads(final["CMD"]) == ["shrinkface", "serve"]
    environment = dict(pair.partition("=")[::2] for pair in shlex.split(final["ENV"]))
    settings = settings_of(
        {name: value for name, value in environment.items() if name.startswith("SHRINKFACE_")}, monkeypatch
    )
    assert settings.auth_required
    assert settings.port == PORT == int(final["EXPOSE"])
    assert json.loads(final["VOLUME"]) == [str(settings.data_dir)]
    assert json.loads(final["HEALTHCHECK"].partition("CMD ")[2]) == ["python3", "/opt/healthcheck.py"]


@WITH_NAMES
def test_what_is_copied_exists_and_is_sent_to_the_builder(path: Path) -> None:
    for word, rest in instructions(path):
        if word == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert sent(source), f".dockerignore keeps {source} back"
    assert not sent("shrinkface-data/api-keys.json")
    assert not sent(".env")
    assert not sent(".git/config")


def sent(name: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that fits it, or a folder above it, decides."""
    names = [name, *(str(parent) for parent in Path(name).parents if str(parent) != ".")]
    through = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            # A * does not cross a slash.
            depth = pattern.count("/")
            if any(each.count("/") == depth and fnmatch.fnmatchcase(each, pattern) for each in names):
                through = line.startswith("!")
    return through


@pytest.mark.parametrize(
    ("options", "has", "has_not"),
    [
        ([], "onnxruntime", "pymilvus"),
        (["--extra", "milvus"], "pymilvus", "torch"),
        (["--extra", "milvus,train"], "torch", "onnxruntime-gpu"),
        (["--extra", "", "--without", "onnxruntime"], "faiss-cpu", "onnxruntime"),
        (["--extra", "milvus", "--without", "milvus-lite,faiss-cpu"], "pymilvus", "milvus-lite"),
        (["--extra", "", "--without", ""], "onnxruntime", "pymilvus"),
    ],
)
def test_the_requirements_of_an_image_are_those_of_the_project(options: list[str], has: str, has_not: str) -> None:
    made = requirements(*options)
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in made.stdout.splitlines()}
    assert has in names
    assert has_not not in names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = {*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)}
    assert set(made.stdout.splitlines()) <= every


def test_an_extra_that_is_not_there_is_refused() -> None:
    made = requirements("--extra", "milvsu")
    assert made.returncode == 1
    assert "milvsu" in made.stderr
    made = requirements("--without", "onnxruntine")
    assert made.returncode == 1
    assert "onnxruntine" in made.stderr


def requirements(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DOCKER / "requirements.py", ROOT / "pyproject.toml", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_says_whether_the_service_is_ready(status: int | None, code: int) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    port = free_port()
    environment = {**os.environ, "SHRINKFACE_HOST": "0.0.0.0", "SHRINKFACE_PORT": str(port)}
    command = [sys.executable, DOCKER / "healthcheck.py"]
    if status is None:
        assert subprocess.run(command, env=environment, capture_output=True, timeout=30).returncode == code
        return
    with http.server.HTTPServer(("127.0.0.1", port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert subprocess.run(command, env=environment, capture_output=True, timeout=30).returncode == code
        finally:
            server.shutdown()
            thread.join()


def test_every_yaml_file_can_be_read() -> None:
    files = [ROOT / "docker-compose.yml", *DOCKER.rglob("*.yml"), *(ROOT / "k8s").rglob("*.yaml")]
    assert len(files) > 20
    for file in files:
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(file.read_text()))
