"""One scenario from beginning to end: Redis and the service started, the callers run, the figures put together."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.load.machine import cores, described, version
from tests.load.service.pictures import PictureSet
from tests.load.service.preparing import people_in
from tests.load.service.processes import Usage, our_service, redis_server, watched
from tests.load.service.scenarios import Job, Scenario
from tests.load.service.summary import summarised

_PACKAGES = (
    "shrinkface",
    "onnxruntime",
    "opencv-python-headless",
    "faiss-cpu",
    "fastapi",
    "uvicorn",
    "uvloop",
    "locust",
)
# Beside the scenario: start of the generator, and answers that are still awaited.
_SPARE_S = 120.0


def loaded(scenario: Scenario, data_dir: Path, pictures: PictureSet, logs: Path, seed: int = 0) -> dict[str, Any]:
    """The record of a scenario on our service.

    Raises:
        RuntimeError: something did not start, or the callers ended early.
    """
    with contextlib.ExitStack() as stack:
        environment = {}
        if scenario.redis:
            environment["SHRINKFACE_REDIS_URL"] = stack.enter_context(redis_server(logs))
        port, process_id = stack.enter_context(our_service(data_dir, logs / "service.log", environment))
        job = Job(
            scenario,
            "shrinkface",
            "127.0.0.1",
            port,
            pictures.probes(seed, people_in(data_dir)),
            pictures.newcomers(seed),
            seed,
        )
        outcome, usage = generated(job, process_id, logs)
    return {**summarised(scenario, outcome, usage), **circumstances()}


def generated(job: Job, process_id: int, logs: Path) -> tuple[dict[str, Any], Usage]:
    """What the callers noted, and what the service used meanwhile.

    Raises:
        RuntimeError: the callers' process failed.
    """
    with tempfile.TemporaryDirectory(prefix="shrinkface-load-") as folder, watched(process_id) as usage:
        told, noted = Path(folder) / "job.json", Path(folder) / "outcome.json"
        told.write_text(json.dumps(asdict(job)))
        limit_s = job.scenario.warm_up_s + job.scenario.seconds + _SPARE_S
        with (logs / "generator.log").open("ab") as log:
            ended = subprocess.run(
                [sys.executable, "-m", "tests.load.service.generator", str(told), str(noted)],
                stdout=log, stderr=log, timeout=limit_s, check=False,
            )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(f"the callers failed:\n{(logs / 'generator.log').read_text()[-2_000:]}")
        return json.loads(noted.read_text()), usage


def circumstances() -> dict[str, Any]:
    """Machine, versions and time."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**described(), "cores": cores()},
        "versions": {package: version(package) for package in _PACKAGES},
    }
