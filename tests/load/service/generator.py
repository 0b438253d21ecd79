"""The callers: a process of its own, since gevent, which locust runs on, replaces parts of Python.

    python -m tests.load.service.generator JOB.json OUTCOME.json

At a fixed rate a request's latency is counted from when it was due, not from when a caller was free to send it, so that
a slow service cannot hide behind its own queue (coordinated omission; Tene, How NOT to Measure Latency).
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from tests.load.service.protocols import NUMBERED, PROTOCOLS, Call, Protocol, deleting, enrolling, problem, verdict
from tests.load.service.scenarios import Job, Scenario

# Requests at once when they come at a rate; beyond it they wait, and their latency says so.
_MOST_AT_ONCE = 512
_TIMEOUT_S = 30.0
_DRAIN_S = 35.0


class Load:
    """What is asked next, and what became of it. One for all callers of the process.

    Attributes:
        rows: of each request: kind, seconds from the start when it was due, latency in ms, outcome, verdict.
        late_ms: how late the generator itself was with a request, at most.
        exposed: the service's metrics when counting began and when it ended.
    """

    def __init__(self, job: Job, environment: Environment) -> None:
        self.job = job
        self.protocol: Protocol = PROTOCOLS[job.service]
        self.scenario: Scenario = job.scenario
        self._environment = environment
        self._rng = np.random.default_rng(job.seed)
        self._client = HTTPClient(
            job.host, job.port, concurrency=_MOST_AT_ONCE, connection_timeout=_TIMEOUT_S, network_timeout=_TIMEOUT_S
        )
        probes = job.probes[: job.scenario.pictures or None]
        self._contents = {path: Path(path).read_bytes() for path, _ in (*probes, *job.newcomers)}
        self._probes, self._newcomers = _round(probes), _round(job.newcomers)
        self._enrolled: list[str] = []
        # A folder that served earlier runs still has whom they enrolled.
        self._numbers = itertools.count(time.time_ns())
        self.rows: list[tuple[str, float, float, str, str]] = []
        self.late_ms = 0.0
        self.exposed: list[str] = []
        self.began = time.perf_counter()
        self.began_at = time.time()

    @property
    def ends(self) -> float:
        """When the last request is due, a time of `time.perf_counter`."""
        return self.began + self.scenario.warm_up_s + self.scenario.seconds

    def next(self) -> tuple[str, str, Call]:
        """Kind of request, who is in its picture, and the call."""
        drawn = float(self._rng.random())
        if drawn < self.scenario.delete_share and self._enrolled:
            return "delete", "", deleting(self._enrolled.pop(0))
        if drawn < self.scenario.delete_share + self.scenario.enrol_share:
            path, shows = next(self._newcomers)
            return "enrol", shows, enrolling(f"{shows}{NUMBERED}{next(self._numbers)}", self._contents[path])
        path, shows = next(self._probes)
        return "identify", shows, self.protocol.identify(self._contents[path])

    def ask(self, due: float) -> None:
        """Send the next request, and note it with its latency since `due`, a time of `time.perf_counter`."""
        kind, shows, call = self.next()
        said = ""
        try:
            response = self._client.request(call.method, call.path, body=call.body, headers=call.headers)
            status, body = response.status_code, response.read()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is an outcome
            outcome = type(error).__name__
            length = 0
        else:
            length = len(body)
            outcome, said = self._judged(kind, shows, call, status, bytes(body))
        latency_ms = (time.perf_counter() - due) * 1e3
        self.rows.append((kind, round(due - self.began, 4), round(latency_ms, 3), outcome, said))
        self._environment.events.request.fire(
            request_type=call.method,
            name=call.path if kind != "delete" else "delete",
            response_time=latency_ms,
            response_length=length,
            exception=None if outcome == "ok" else RuntimeError(outcome),
            context={},
        )

    def _judged(self, kind: str, shows: str, call: Call, status: int, body: bytes) -> tuple[str, str]:
        if kind == "identify":
            if status == 200:
                return "ok", verdict(shows, self.protocol.read(body))
            if self.protocol.no_face(body):
                return "ok", "no face"
        elif kind == "enrol" and status in (200, 201):
            self._enrolled.append(json.loads(body)["person"]["person_id"])
            return "ok", "enrolled"
        elif kind == "delete" and status == 200:
            return "ok", "deleted"
        elif kind == "enrol" and problem(body) in ("no-face", "several-faces", "quality-too-low"):
            return "ok", "refused"
        return f"{status} {problem(body)}".strip(), ""

    def expose(self) -> None:
        """Note the service's metrics as they are."""
        if self.protocol.metrics is not None:
            self.exposed.append(self._client.get(self.protocol.metrics).read().decode())

    def erase(self) -> None:
        """Delete those who were enrolled, so that the folder is as it was."""
        for person in self._enrolled:
            self._client.request("DELETE", deleting(person).path).read()


def _round(listed: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    while listed:
        yield from listed


def callers(load: Load) -> type[User]:
    """Locust's users: those who ask again at once, or one who sends requests as they fall due."""

    class Caller(User):
        @task
        def ask(self) -> None:
            load.ask(time.perf_counter())

    class Arrivals(User):
        @task
        def arrive(self) -> None:
            pool = Pool(_MOST_AT_ONCE)
            rng = np.random.default_rng([load.job.seed, 1])
            due = load.began
            # Locust lets a task finish, so that one without an end would go on after the others.
            while (due := due + float(rng.exponential(1 / load.scenario.rate_per_s))) < load.ends:
                if (wait := due - time.perf_counter()) > 0:
                    gevent.sleep(wait)
                load.late_ms = max(load.late_ms, (time.perf_counter() - due) * 1e3)
                pool.spawn(load.ask, due)
            pool.join()
            raise StopUser

    return Caller if load.scenario.callers else Arrivals


def run(job: Job) -> dict[str, Any]:
    """Carry it out; what `summary.summarised` reads."""
    environment = Environment(stop_timeout=_DRAIN_S)
    load = Load(job, environment)
    environment.user_classes = [callers(load)]
    runner = environment.create_local_runner()
    count = job.scenario.callers or 1
    load.began, load.began_at = time.perf_counter(), time.time()
    runner.start(count, spawn_rate=count)
    gevent.sleep(job.scenario.warm_up_s)
    load.expose()
    # The processor time of the callers while it is counted, to be told from the service's.
    used = time.process_time()
    gevent.sleep(max(0.0, load.ends - time.perf_counter()))
    used = time.process_time() - used
    load.expose()
    ended = time.perf_counter() - load.began
    runner.quit()
    _wait_for_the_last(load)
    load.erase()
    total = environment.stats.total
    return {
        "began_at": load.began_at,
        "counted_from_s": job.scenario.warm_up_s,
        "counted_to_s": ended,
        "rows": load.rows,
        "late_ms": load.late_ms,
        "generator_cpu_s": used,
        "exposed": load.exposed,
        "locust": {"requests": total.num_requests, "failures": total.num_failures},
    }


def _wait_for_the_last(load: Load) -> None:
    """Until no request has come back for a while that the timeout of one cannot explain."""
    until = time.perf_counter() + _DRAIN_S
    before = -1
    while len(load.rows) != before and time.perf_counter() < until:
        before = len(load.rows)
        gevent.sleep(0.5)


def main() -> None:
    """See the module."""
    job_path, outcome_path = map(Path, sys.argv[1:3])
    told = json.loads(job_path.read_text())
    told["scenario"] = Scenario(**told["scenario"])
    for group in ("probes", "newcomers"):
        told[group] = [tuple(each) for each in told[group]]
    outcome_path.write_text(json.dumps(run(Job(**told))))


if __name__ == "__main__":
    main()
