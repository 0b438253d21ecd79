"""A process is killed in mid-enrolment, again and again, on one folder."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import service
from service.gallery.audit import audit
from tests.unit.gallery.common import embedding, open_embedded
from tests.unit.gallery.kill_worker import faces_of

ROUNDS = 5
REPOSITORY = Path(service.__file__).parents[1]


def killed_run(folder: Path, round_: int) -> list[list[str]]:
    """Words of each whole line that a worker printed before SIGKILL struck it."""
    command = [sys.executable, "-m", "tests.unit.gallery.kill_worker", str(folder), f"r{round_}"]
    worker = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    lines = [worker.stdout.readline()]
    killer = threading.Timer(random.uniform(0.02, 0.5), worker.kill)
    killer.start()
    lines += worker.stdout.readlines()
    worker.stdout.close()
    killer.join()
    assert worker.wait() == -9
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.anyio
async def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    said: dict[str, set[str]] = {word: set() for word in ("enrolling", "enrolled", "forgetting", "forgotten")}
    for round_ in range(ROUNDS):
        for word, person_id in killed_run(tmp_path, round_):
            said[word].add(person_id)
        gallery = open_embedded(tmp_path)
        persons = await gallery.persons("g", after=None, limit=1_000_000)
        there = [person.person_id for person in persons]
        assert len(there) == len(set(there))
        assert said["enrolled"] - said["forgetting"] <= set(there)
        assert not said["forgotten"] & set(there)
        assert set(there) <= said["enrolling"]
        for person in persons:
            assert list(person.face_ids) == faces_of(person.person_id)
        faces = [face_id for person in persons for face_id in person.face_ids]
        summary = await gallery.summary("g")
        assert (summary.persons, summary.faces) == (len(persons), len(faces))
        results = await gallery.search("g", np.stack([embedding(face_id) for face_id in faces]), 1)
        assert [result.matches[0].face_id for result in results] == faces
        assert {result.gallery_size for result in results} == {len(faces)}
        await gallery.close()
        assert not audit(tmp_path).findings
    assert len(said["enrolled"]) > ROUNDS
