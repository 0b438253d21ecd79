"""SIGKILL in mid-enrolment over HTTP: the acknowledged is there, once and whole; nothing is half there."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.demo import jpeg, load_portraits
from tests.e2e.conftest import Service

CLIENTS = 16


def enrol_until_killed(service: Service, total: int, kill_after: int, rng: random.Random) -> set[str]:
    """Enrol `total` people from 16 clients, kill about `kill_after` acknowledgements in; the acknowledged ids."""
    pictures = [jpeg(portrait.pixels, quality) for portrait in load_portraits() for quality in (60, 90)]
    acknowledged: set[str] = set()
    lock = threading.Lock()
    due = threading.Event()

    def enrol(client: httpx.Client, number: int) -> None:
        person_id = f"k{number}"
        # Two faces each, so that a half-stored person would show.
        files = [("images", pictures[number % 4]), ("images", pictures[(number + 1) % 4])]
        try:
            response = client.post(f"{service.url}/enroll", files=files, data={"person_id": person_id})
        except httpx.TransportError:
            return
        if response.status_code == 201:
            with lock:
                acknowledged.add(person_id)
                if len(acknowledged) >= kill_after:
                    due.set()

    def killer() -> None:
        due.wait(timeout=600)
        time.sleep(rng.uniform(0, 0.05))
        service.kill()

    thread = threading.Thread(target=killer)
    thread.start()
    with ThreadPoolExecutor(CLIENTS) as pool, httpx.Client(timeout=60) as client:
        list(pool.map(lambda number: enrol(client, number), range(total)))
    due.set()
    thread.join()
    return acknowledged


def check_after_restart(service: Service, acknowledged: set[str]) -> int:
    """Start again and compare; how many people were found."""
    service.start()
    url, found = f"{service.url}/v1/galleries/default/persons", []
    cursor: str | None = None
    for _ in range(100):
        page = httpx.get(url, params={"limit": 500, **({"cursor": cursor} if cursor else {})}, timeout=30).json()
        found += page["persons"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    ids = [person["person_id"] for person in found]
    assert len(ids) == len(set(ids))
    assert acknowledged <= set(ids)
    assert all(len(person["face_ids"]) == 2 for person in found)
    gallery = httpx.get(f"{service.url}/v1/galleries/default").json()
    assert (gallery["persons"], gallery["faces"]) == (len(ids), 2 * len(ids))
    return len(ids)


def test_a_kill_loses_nothing_acknowledged(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.start()
    acknowledged = enrol_until_killed(service, total=80, kill_after=30, rng=random.Random(1))
    assert 30 <= len(acknowledged) < 80
    check_after_restart(service, acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(20))
def test_a_thousand_enrolments_killed_at_a_random_moment(
    new_service: Callable[..., Service], round_number: int, tmp_path: Path
) -> None:
    rng = random.Random(round_number)
    service = new_service()
    service.start()
    acknowledged = enrol_until_killed(service, total=1000, kill_after=rng.randrange(1, 1000), rng=rng)
    found = check_after_restart(service, acknowledged)
    (tmp_path / "outcome.txt").write_text(f"{len(acknowledged)} acknowledged, {found} found\n")
