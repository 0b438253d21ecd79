"""The load test's own arithmetic: what it asks, what it counts as wrong, and from when it counts a latency."""

from __future__ import annotations

import email
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client import generate_latest

from service.telemetry import BATCH_SIZE, CACHE_LOOKUPS, PICTURE_LOOKUPS, STAGE_SECONDS
from tests.load.service.exposition import between
from tests.load.service.pictures import SIDE_PX, picture_set
from tests.load.service.processes import Usage
from tests.load.service.protocols import Reading, form, main_face, verdict
from tests.load.service.rendering import plot, tables
from tests.load.service.scenarios import SCENARIOS, Job, Scenario
from tests.load.service.summary import disturbed, summarised, used, wrong


@pytest.mark.parametrize(
    "asked", [{}, {"callers": 1, "rate_per_s": 1}, {"callers": 1, "enrol_share": 0.9, "delete_share": 0.1}]
)
def test_a_scenario_needs_callers_or_a_rate_and_some_to_identify(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bad"):
        Scenario("bad", "", 1, **asked)


@pytest.mark.parametrize(
    ("shows", "identified", "first", "expected"),
    [
        ("ann", "ann", "ann", "identified"),
        # Enrolled once more while the load ran.
        ("ann", "ann.17", "ann.17", "identified"),
        ("ann", "bob", "bob", "swapped"),
        ("ann", None, "ann.3", "missed, though first"),
        ("ann", None, "bob", "missed"),
        ("ann", None, None, "missed"),
        ("", None, "bob", "stranger rejected"),
        ("", "bob", "bob", "stranger identified"),
    ],
)
def test_verdicts(shows: str, identified: str | None, first: str | None, expected: str) -> None:
    assert verdict(shows, Reading(identified, first)) == expected


def test_a_form_holds_its_fields_and_the_picture() -> None:
    picture = bytes(range(256)) * 3
    body, headers = form({"person_id": "ann"}, picture)
    message = email.message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    first, second = message.get_payload()
    assert (first.get_param("name", header="content-disposition"), first.get_payload()) == ("person_id", "ann")
    assert (second.get_param("name", header="content-disposition"), second.get_content_type()) == (
        "image",
        "image/jpeg",
    )
    assert picture in body


def test_the_main_face_is_the_one_in_the_middle() -> None:
    large = {"box": {"x": 0, "y": 0, "width": 120, "height": 120}}
    middle = {"box": {"x": 110, "y": 105, "width": 40, "height": 40}}
    assert main_face([large, middle], 250, 250) is middle


def test_metrics_between_two_looks() -> None:
    BATCH_SIZE.observe(1)
    CACHE_LOOKUPS.labels("hit").inc(7)
    earlier = generate_latest().decode()
    for size in (1, 3, 4, 8):
        BATCH_SIZE.observe(size)
    CACHE_LOOKUPS.labels("hit").inc(3)
    CACHE_LOOKUPS.labels("miss").inc()
    PICTURE_LOOKUPS.labels("hit").inc(2)
    STAGE_SECONDS.labels("decode").observe(0.002)
    STAGE_SECONDS.labels("decode").observe(0.004)
    found = between(earlier, generate_latest().decode())
    assert found["cache_lookups"] == {"hit": 3, "miss": 1}
    assert found["picture_lookups"] == {"hit": 2}
    assert found["batches"] == {"mean": 4.0, "shares": {"up to 1": 0.25, "up to 4": 0.5, "up to 8": 0.25}}
    assert found["stages_ms"] == {"decode": 3.0}


def outcome(rows: list[tuple[str, float, float, str, str]], to_s: float = 10.0) -> dict[str, Any]:
    return {
        "began_at": 1_000.0,
        "counted_from_s": 2.0,
        "counted_to_s": to_s,
        "rows": rows,
        "late_ms": 0.4,
        "generator_cpu_s": 4.0,
        "exposed": [],
    }


def test_what_falls_into_the_warm_up_counts_as_an_error_but_not_as_speed() -> None:
    rows = [
        ("identify", 0.5, 900.0, "503 queue-full", ""),
        ("identify", 1.9, 500.0, "ok", "identified"),
        *(("identify", 2.0 + i / 10, 10.0, "ok", "identified") for i in range(70)),
        ("identify", 9.5, 20.0, "ok", "swapped"),
        ("identify", 9.6, 30.0, "ok", "stranger identified"),
        # Answered when it is over.
        ("identify", 9.9, 400.0, "ok", "stranger rejected"),
        ("enrol", 5.0, 80.0, "ok", "enrolled"),
        ("identify", 10.5, 10.0, "TimeoutError", ""),
    ]
    record = summarised(Scenario("s", "", 8, callers=1), outcome(rows), Usage())
    assert record["requests_by_kind"] == {"enrol": 1, "identify": 73}
    assert record["errors"] == {"identify: 503 queue-full": 1, "identify: TimeoutError": 1}
    # Those that ended within the eight seconds, with the one that began before.
    assert record["requests_per_s"] == pytest.approx((1 + 70 + 2 + 1) / 8, abs=0.1)
    assert record["latency_ms"]["identify"]["max"] == 400.0
    assert record["latency_ms"]["identify"]["p50"] == 10.0
    assert wrong(record) == 2
    assert record["generator_cores"] == 0.5


def test_growth_of_memory_leaves_out_the_first_minute() -> None:
    at = np.arange(0, 300, 0.5)
    # It doubles in the first minute, and then grows by a tenth.
    resident = np.where(at < 60, 50 + at / 60 * 50, 100 + 10 * (at - 60) / 240) * 2**20
    usage = Usage(
        (1_000 + at).tolist(),
        (at * 1.5).tolist(),
        resident.astype(int).tolist(),
        [2**20] * len(at),
        (at * 1.9).tolist(),
    )
    found = used(usage, 1_000, 1_300)
    assert (found["cores"], found["machine_cores"]) == (1.5, 1.9)
    assert found["resident_growth_percent"] == pytest.approx(9.0, abs=0.7)
    assert found["anonymous_growth_percent"] == 0.0


def test_a_machine_that_did_other_things_too_is_told() -> None:
    at = np.arange(1_000, 1_020, 0.5).tolist()
    usage = Usage(at, [second * 0.8 for second in at], [2**20] * 40, [2**20] * 40, [second * 1.9 for second in at])
    record = summarised(Scenario("s", "", 8, callers=1), outcome([("identify", 3.0, 9.0, "ok", "identified")]), usage)
    # Half a core went to the callers.
    assert disturbed(record) == pytest.approx(0.6)
    assert "in cores: s 0.6; measure again" in tables([record])
    record["usage"]["machine_cores"] = 1.4
    assert "measure again" not in tables([record])


def test_records_become_tables_and_a_picture(tmp_path: Path) -> None:
    rows = [("identify", 2.0 + i / 100, 12.0, "ok", "identified") for i in range(500)]
    rows.append(("identify", 8.0, 70.0, "503 queue-full", ""))
    record = summarised(Scenario("burst", "9 callers", 8, callers=9), outcome(rows), Usage())
    text = tables([record])
    assert "| 9 callers | 62.5 | 12.0, 12.0, 12.0, 12.0 | 1 x identify: 503 queue-full | 0 | - | - |" in text
    assert "| burst | 500 | 0 | 0 | 0 | 0 | 0 | 0 |" in text
    plot([record], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_pictures_of_people_with_several_are_enrolled_and_looked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("Ann", 3), ("Bob", 1)):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (150, 150, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "faces" / name / f"{name}_{number}.jpg"), pixels)
    found = picture_set(tmp_path / "out", tmp_path / "faces")
    assert [path.name for path in found.enrolled.iterdir()] == ["Ann"]
    assert [shows for _, shows in found.probes(0, frozenset({"Ann"}))] == ["Ann", "Ann"]
    # Where their picture has several faces, they could not be enrolled.
    assert [shows for _, shows in found.probes(0, frozenset())] == ["", ""]
    assert [shows for _, shows in found.newcomers(0)] == ["Bob"]
    sizes = {cv2.imread(path).shape for path, _ in (*found.probes(0, frozenset()), *found.listed("enrolled"))}
    assert sizes == {(SIDE_PX, SIDE_PX, 3)}
    written = {path: path.stat().st_mtime_ns for path in found.root.rglob("*.jpg")}
    again = picture_set(tmp_path / "out", tmp_path / "faces")
    assert {path: path.stat().st_mtime_ns for path in again.root.rglob("*.jpg")} == written


@contextmanager
def stalling(after: int, stall_s: float) -> Iterator[int]:
    """A server that serves one request at a time, and once makes everybody wait; its port."""
    turn, served = threading.Lock(), iter(range(1_000_000))
    face = {"box": {"x": 0, "y": 0, "width": 9, "height": 9}, "matches": []}
    face["decision"] = {"identified": False, "person_id": None}
    answer = json.dumps({"faces": [face], "width": 9, "height": 9}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body leave as two packets, and a delayed acknowledgement would hold up the second.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with turn:
                if next(served) == after:
                    time.sleep(stall_s)
            self._answer(answer)

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("load", [{"callers": 1}, {"rate_per_s": 40}])
def test_a_stall_is_felt_by_all_who_come_at_a_rate(load: dict[str, Any], tmp_path: Path) -> None:
    """One second of silence delays some forty arrivals by half a second each; a caller who waits sees it once."""
    (tmp_path / "picture.jpg").write_bytes(b"not looked at")
    with stalling(after=20, stall_s=1.0) as port:
        scenario = Scenario("stall", "", 2.5, warm_up_s=0.1, **load)
        job = Job(scenario, "shrinkface", "127.0.0.1", port, [(str(tmp_path / "picture.jpg"), "")])
        (tmp_path / "job.json").write_text(json.dumps(asdict(job)))
        command = [sys.executable, "-m", "tests.load.service.generator", tmp_path / "job.json", tmp_path / "out.json"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    rows = found["rows"]
    assert {(row[0], row[3], row[4]) for row in rows} == {("identify", "ok", "stranger rejected")}
    assert found["locust"] == {"requests": len(rows), "failures": 0}
    slow = [row for row in rows if row[2] > 300]
    if "callers" in load:
        assert 1 <= len(slow) <= 3
    else:
        assert len(rows) == pytest.approx(104, abs=35)
        assert len(slow) >= 15


def test_the_scenarios_are_those_of_the_documents() -> None:
    assert set(SCENARIOS) == {"closed", "rate-50", "rate-100", "repeated", "mix", "soak"}
    assert SCENARIOS["mix"].enrol_share + SCENARIOS["mix"].delete_share == pytest.approx(0.05)
    assert SCENARIOS["soak"].seconds == 600
