"""Clients who enrol, erase and identify without a pause, and who write down what they were answered."""

from __future__ import annotations

import random
import threading
import time
import uuid
from dataclasses import dataclass, field

import httpx

from service.api.problems import STATUS_OF_CODE
from tests.chaos.cast import Cast, Probe
from tests.chaos.ledger import Ledger

CLIENTS = 6
_TIMEOUT_S = 20.0
_IDENTIFY, _ENROL = 0.6, 0.85
_PROBLEM = "urn:shrinkface:problem:"
# Whether the change happened is open after these.
_OPEN = {"gallery-unavailable", "not-ready", "internal-error", "storage-unusable"}

OK, REFUSED, NO_ANSWER, WRONG, UNDOCUMENTED = "ok", "refused connection", "no answer", "wrong", "undocumented"


@dataclass(frozen=True)
class Record:
    """One request.

    Attributes:
        began, ended: in seconds of the monotonic clock.
        outcome: OK, a documented problem's code, or another of the words above.
        detail: of what should not have been.
    """

    began: float
    ended: float
    call: str
    outcome: str
    detail: str = ""


@dataclass
class Load:
    """Runs until it is stopped; `writing` may be switched off and on meanwhile."""

    url: str
    cast: Cast
    ledger: Ledger
    clients: int = CLIENTS
    records: list[Record] = field(default_factory=list)
    writing: bool = True
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _writes: int = 0

    def start(self) -> None:
        for number in range(self.clients):
            thread = threading.Thread(target=self._run, args=(random.Random(number),), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Returns when every request has been answered or given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=_TIMEOUT_S + 10)

    def pause_writing(self) -> None:
        """Returns when no change is under way any more."""
        self.writing = False
        until = time.monotonic() + _TIMEOUT_S + 5
        while self._writes and time.monotonic() < until:
            time.sleep(0.02)

    def _run(self, rng: random.Random) -> None:
        own: list[str] = []
        with httpx.Client(base_url=self.url, timeout=_TIMEOUT_S) as client:
            while not self._stop.is_set():
                what = rng.random()
                began = time.monotonic()
                if what < _IDENTIFY or not self.writing:
                    call, (outcome, detail) = "identify", self._identify(client, rng.choice(self.cast.probes))
                else:
                    with self.ledger.lock:
                        self._writes += 1
                    try:
                        if what < _ENROL or not own:
                            call, (outcome, detail) = "enrol", self._enrol(client, rng, own)
                        else:
                            person_id = own.pop(rng.randrange(len(own)))
                            call, (outcome, detail) = "erase", self._erase(client, person_id)
                    finally:
                        with self.ledger.lock:
                            self._writes -= 1
                self.records.append(Record(began, time.monotonic(), call, outcome, detail))
                if outcome == REFUSED:
                    # Nobody listens: no reason to ask a thousand times a second.
                    time.sleep(0.05)

    def _identify(self, client: httpx.Client, probe: Probe) -> tuple[str, str]:
        answer = sent(client, "POST", "/identify", files={"image": probe.picture})
        if isinstance(answer, tuple):
            return answer
        return judged(answer, probe)

    def _enrol(self, client: httpx.Client, rng: random.Random, own: list[str]) -> tuple[str, str]:
        label = rng.choice(sorted(self.cast.enrolled))
        person_id = f"{label}.{uuid.uuid4().hex[:12]}"
        files = {"image": self.cast.enrolled[label]}
        answer = sent(client, "POST", "/enroll", files=files, data={"person_id": person_id})
        if isinstance(answer, tuple):
            refused = answer[0] in STATUS_OF_CODE and answer[0] not in _OPEN
            if answer[0] != REFUSED:
                self.ledger.note(self.ledger.refused if refused else self.ledger.open, person_id)
            return answer
        self.ledger.note(self.ledger.enrolled, person_id)
        own.append(person_id)
        return OK, ""

    def _erase(self, client: httpx.Client, person_id: str) -> tuple[str, str]:
        answer = sent(client, "DELETE", f"/v1/galleries/default/persons/{person_id}")
        if isinstance(answer, tuple):
            if answer[0] == "person-not-found":
                return WRONG, f"{person_id} was acknowledged and is not there"
            if answer[0] != REFUSED:
                self.ledger.note(self.ledger.open, person_id)
            return answer
        self.ledger.note(self.ledger.erased, person_id)
        return OK, ""


def sent(client: httpx.Client, method: str, path: str, **what: object) -> httpx.Response | tuple[str, str]:
    """The answer if it is a success, else its kind and detail."""
    try:
        answer = client.request(method, path, **what)
    except httpx.ConnectError:
        return REFUSED, ""
    except httpx.TransportError as error:
        return NO_ANSWER, repr(error)
    if answer.is_success:
        return answer
    code = ""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = answer.json()
        code = str(problem.get("type", "")).removeprefix(_PROBLEM)
        if problem.get("status") != answer.status_code or STATUS_OF_CODE.get(code, (0, ""))[0] != answer.status_code:
            code = ""
    return (code, "") if code else (UNDOCUMENTED, f"{answer.status_code} {answer.text[:200]}")


def judged(answer: httpx.Response, probe: Probe) -> tuple[str, str]:
    """Whether the person of a picture was named, and a stranger was not."""
    faces = answer.json()["faces"]
    if not faces:
        return WRONG, "no face was found in a picture that has one"
    person_id = max(faces, key=lambda face: face["box"]["width"])["decision"]["person_id"]
    label = None if person_id is None else person_id.partition(".")[0]
    if label == probe.label:
        return OK, ""
    return WRONG, f"{probe.label or 'a stranger'} was taken for {person_id or 'nobody known'}"
