"""What a run under a fault counts as wrong, lost or excused, and when it counts as recovered."""

from __future__ import annotations

import httpx
import pytest

from tests.chaos import report
from tests.chaos.cast import Probe
from tests.chaos.experiment import Outcome, judge
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger
from tests.chaos.load import NO_ANSWER, OK, REFUSED, UNDOCUMENTED, WRONG, Record, judged, sent


def identified_as(*people: tuple[str | None, float]) -> httpx.Response:
    faces = [{"box": {"width": width}, "decision": {"person_id": person_id}} for person_id, width in people]
    return httpx.Response(200, json={"faces": faces})


@pytest.mark.parametrize(
    ("label", "people", "outcome"),
    [
        ("ann", [("ann.1", 90)], OK),
        ("ann", [("bob.1", 40), ("ann.7", 90)], OK),
        (None, [(None, 90)], OK),
        ("ann", [("bob.1", 90)], WRONG),
        ("ann", [(None, 90)], WRONG),
        (None, [("ann.1", 90)], WRONG),
        ("ann", [], WRONG),
    ],
)
def test_an_answer_is_right_when_it_names_whom_the_picture_shows(label, people, outcome) -> None:
    assert judged(identified_as(*people), Probe(label, b""))[0] == outcome


def problem(status: int, code: str, media_type: str = "application/problem+json") -> httpx.Response:
    body = {"type": f"urn:shrinkface:problem:{code}", "status": status}
    return httpx.Response(status, json=body, headers={"Content-Type": media_type})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(503, "overloaded"), "overloaded"),
        (problem(500, "overloaded"), UNDOCUMENTED),
        (problem(503, "invented"), UNDOCUMENTED),
        (problem(503, "overloaded", "application/json"), UNDOCUMENTED),
        (httpx.Response(502, text="bad gateway"), UNDOCUMENTED),
        (httpx.ConnectError("refused"), REFUSED),
        (httpx.ReadError("reset"), NO_ANSWER),
    ],
    ids=str,
)
def test_only_documented_problems_count_as_such(answer, kind) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with httpx.Client(transport=httpx.MockTransport(handle), base_url="http://a") as client:
        found = sent(client, "GET", "/")
    assert isinstance(found, tuple)
    assert found[0] == kind


def test_people_are_missed_back_or_unasked() -> None:
    ledger = Ledger(enrolled={"a", "b", "c", "d"}, erased={"c"}, refused={"e"}, open={"d", "f"})
    fine = ledger.compare({"a": 1, "b": 1})
    assert list(fine.all()) == []
    assert list(ledger.compare({"a": 1, "b": 1, "d": 1, "f": 1}).all()) == []
    wrong = ledger.compare({"a": 2, "c": 1, "e": 1})
    assert (wrong.lost, wrong.back, wrong.unasked, wrong.halved) == (["b"], ["c"], ["e"], ["a"])


def outcome_of(*records: Record) -> Outcome:
    outcome = Outcome("service-terminated", "")
    judge(FAULTS["service-terminated"](), list(records), 10.0, 20.0, outcome)
    return outcome


def test_errors_are_excused_from_the_fault_on_and_recovery_ends_with_the_last() -> None:
    good = Record(31, 32, "identify", OK)
    outcome = outcome_of(Record(11, 12, "identify", REFUSED), Record(23, 24.5, "identify", REFUSED), good)
    assert outcome.passed
    assert outcome.recovery_s == 4.5
    assert not outcome_of(Record(8, 9, "identify", REFUSED), good).passed
    assert not outcome_of(Record(11, 12, "enrol", NO_ANSWER), Record(11, 12, "enrol", REFUSED), good).passed
    assert not outcome_of(Record(30, 31, "enrol", REFUSED), good).passed
    assert not outcome_of(Record(11, 12, "identify", WRONG, "ann was taken for bob"), good).passed
    assert not outcome_of(Record(11, 12, "identify", OK)).passed
    # Without a sign of the fault nothing was tested.
    assert not outcome_of(Record(11, 12, "identify", OK), good).passed


def test_the_report_counts() -> None:
    outcome = outcome_of(Record(11, 12, "identify", REFUSED), Record(21, 22, "identify", OK))
    outcome.acknowledged = 5_001
    (row,) = [line for line in report.table([outcome.as_json()]).splitlines() if "service-terminated" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["service-terminated", "2", "1", "1 refused connection", "0", "5,001", "0", "0.0 s"]
