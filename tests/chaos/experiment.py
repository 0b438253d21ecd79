"""One fault from beginning to end: a service at work, the harm, the mending, and what must hold afterwards."""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from tests.chaos.cast import Cast
from tests.chaos.fault import Fault, NotRunnableError, Scene
from tests.chaos.ledger import Ledger
from tests.chaos.load import OK, UNDOCUMENTED, WRONG, Load, Record, judged, sent
from tests.chaos.process import ServiceProcess

RECOVERY_S = 10.0
_CROWD = 5_000
_BEFORE_S = 3.0
# The service counts as recovered when for so long nothing but right answers came; it is waited for that long at most.
_QUIET_S, _PATIENCE_S = 5.0, 60.0
_MARGIN = 0.03
_SHOWN = 10
_SETTINGS = {
    # So that the crowd is searched by the compressed index, which has snapshots in files.
    "SHRINKFACE_GALLERY_EXACT_UP_TO": "1000",
    "SHRINKFACE_LOG_LEVEL": "warning",
}


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        requests: by what they were answered.
        not_allowed: answers of kinds that this fault does not excuse, or that came when it had no part in them.
        wrong: answers that named somebody else, missed who is known, or named a stranger.
        differences: between what was acknowledged and what is there, while it serves and after SIGKILL and a start.
        acknowledged: enrolments and erasures, the crowd's import included.
        recovery_s: from the mending to the end of the last request that was not answered right; 0 if there was none.
        skipped: why it could not be run.
    """

    fault: str
    what: str
    requests: dict[str, int] = field(default_factory=dict)
    not_allowed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    acknowledged: int = 0
    recovery_s: float = 0.0
    skipped: str = ""

    @property
    def passed(self) -> bool:
        held = not (self.not_allowed or self.wrong or self.differences)
        return held and not self.skipped and self.recovery_s <= RECOVERY_S

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def run(fault: Fault, cast: Cast, log: Path | None = None) -> Outcome:
    """Run one fault in a folder of its own, on a service of its own.

    Args:
        log: where to put what the service wrote to its log.
    """
    outcome = Outcome(fault.name, fault.what)
    with tempfile.TemporaryDirectory(prefix=f"chaos-{fault.name}-") as name:
        folder = Path(name)
        service = ServiceProcess(folder / "data", folder / "service.log", dict(_SETTINGS))
        scene = Scene(folder, service, Load(service.url, cast, Ledger()))
        try:
            fault.prepare(scene)
            service.start()
            scene.load.cast = introduced(service.url, cast, scene.load.ledger)
            _experience(fault, scene, outcome)
        except NotRunnableError as reason:
            outcome.skipped = str(reason)
        finally:
            service.kill()
            fault.clean(scene)
            if log is not None and service.log.exists():
                shutil.copyfile(service.log, log)
    return outcome


def _experience(fault: Fault, scene: Scene, outcome: Outcome) -> None:
    load, service = scene.load, scene.service
    load.start()
    try:
        time.sleep(_BEFORE_S)
        began = time.monotonic()
        fault.begin(scene)
        time.sleep(fault.during_s)
        fault.end(scene)
        ended = time.monotonic()
        _await_quiet(load)
    finally:
        load.stop()
    judge(fault, load.records, began, ended, outcome)
    if not fault.felt(scene):
        outcome.not_allowed.append("the fault did not reach the service")
    outcome.acknowledged = len(load.ledger.enrolled) + len(load.ledger.erased)
    outcome.differences += _compared(service.url, load.ledger, "while serving")
    service.kill()
    service.start()
    outcome.differences += _compared(service.url, load.ledger, "after SIGKILL and a start")
    if fault.verified:
        verified = service.command("gallery", "verify")
        if verified.returncode != 0:
            outcome.differences.append(f"gallery verify: {(verified.stdout + verified.stderr)[-400:]}")


def _await_quiet(load: Load) -> None:
    now = began = time.monotonic()
    while now < began + _PATIENCE_S:
        time.sleep(0.1)
        now = time.monotonic()
        records = [*load.records]
        failed_at = max((record.ended for record in records if record.outcome != OK), default=began)
        right_at = max((record.ended for record in records if record.outcome == OK), default=began)
        if now - max(failed_at, began) > _QUIET_S and right_at > max(failed_at, began):
            return


def judge(fault: Fault, records: list[Record], began: float, ended: float, outcome: Outcome) -> None:
    outcome.requests = dict(sorted(Counter(record.outcome for record in records).items()))
    outcome.wrong = [f"{record.call}: {record.detail}" for record in records if record.outcome == WRONG][:_SHOWN]
    failed = [record for record in records if record.outcome != OK]
    for record in failed:
        excused = record.outcome in fault.allowed and record.ended >= began
        if record.outcome == UNDOCUMENTED or (record.outcome != WRONG and not excused):
            when = record.ended - began
            outcome.not_allowed.append(f"{record.call}, {when:+.1f} s: {record.outcome} {record.detail}".rstrip())
    outcome.not_allowed = outcome.not_allowed[:_SHOWN]
    outcome.recovery_s = round(max((record.ended - ended for record in failed), default=0.0), 2)
    outcome.recovery_s = max(0.0, outcome.recovery_s)
    if fault.shows and not any(record.outcome in fault.shows for record in records):
        outcome.not_allowed.append("the fault did not show in any answer")
    if not any(record.outcome == OK and record.ended > ended for record in records):
        outcome.not_allowed.append("no request was answered after the fault")
        outcome.recovery_s = float("inf")


def introduced(url: str, cast: Cast, ledger: Ledger) -> Cast:
    """Have the crowd and the known enrolled. The cast without pictures that a healthy service is not sure about.

    A probe stays if it is answered right with some distance to the threshold: the load itself moves the threshold, and
    a borderline picture would tell nothing about a fault.
    """
    with httpx.Client(base_url=url, timeout=60) as client:
        _import_crowd(client, ledger)
        enrolled: dict[str, bytes] = {}
        for label, picture in cast.enrolled.items():
            person_id = f"{label}.anchor"
            answer = sent(client, "POST", "/enroll", files={"image": picture}, data={"person_id": person_id})
            if isinstance(answer, httpx.Response):
                enrolled[label] = picture
                ledger.note(ledger.enrolled, person_id)
        probes = []
        for probe in cast.probes:
            if probe.label is not None and probe.label not in enrolled:
                continue
            answer = sent(client, "POST", "/identify", files={"image": probe.picture})
            if isinstance(answer, httpx.Response) and judged(answer, probe)[0] == OK and _is_sure(answer):
                probes.append(probe)
    kept = Cast(enrolled, tuple(probes))
    if not any(probe.label for probe in kept.probes) or all(probe.label for probe in kept.probes):
        raise RuntimeError("the cast needs somebody known and a stranger whom the healthy service is sure about")
    return kept


def _is_sure(answer: httpx.Response) -> bool:
    face = max(answer.json()["faces"], key=lambda face: face["box"]["width"])
    best = face["matches"][0]["similarity"] if face["matches"] else -1.0
    return abs(best - face["decision"]["threshold"]) > _MARGIN


def _import_crowd(client: httpx.Client, ledger: Ledger) -> None:
    """Random directions as people whom no picture resembles."""
    model = client.get("/health/ready").json()["model"]
    rows = np.random.default_rng(7).normal(size=(_CROWD, model["dimension"])).astype("<f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lines = [_crowd_line(number, row, model) for number, row in enumerate(rows)]
    answer = client.post(
        "/v1/galleries/default/import", content=b"".join(lines), headers={"Content-Type": "application/x-ndjson"}
    )
    answer.raise_for_status()
    summary = orjson.loads(answer.content.splitlines()[-1])["summary"]
    if summary["added"] != _CROWD:
        raise RuntimeError(f"the crowd was not imported: {summary}")
    for number in range(_CROWD):
        ledger.note(ledger.enrolled, f"crowd.{number}")


def _crowd_line(number: int, row: np.ndarray, model: Mapping[str, Any]) -> bytes:
    face = {"face_id": f"crowd-{number}", "embedding": base64.b64encode(row.tobytes()).decode()}
    record = {"space_id": model["space_id"], "person_id": f"crowd.{number}", "faces": [face]}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _compared(url: str, ledger: Ledger, when: str) -> list[str]:
    found: dict[str, int] = {}
    cursor: str | None = None
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(1000):
            query = {"limit": 500, **({"cursor": cursor} if cursor else {})}
            answer = sent(client, "GET", "/v1/galleries/default/persons", params=query)
            if isinstance(answer, tuple):
                return [f"{when}: people are not listed: {' '.join(answer)}"]
            page = answer.json()
            found |= {person["person_id"]: len(person["face_ids"]) for person in page["persons"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
    return [f"{when}: {difference}" for difference in ledger.compare(found).all()][:_SHOWN]
