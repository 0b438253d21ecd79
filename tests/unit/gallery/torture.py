"""Rounds of SIGKILL on one data folder, each followed by a check: nothing acknowledged is lost, nothing invented.

python -m tests.unit.gallery.torture --rounds 200
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import service
from service.gallery.audit import audit
from tests.unit.gallery.common import embedding, open_embedded
from tests.unit.gallery.torture_worker import UPKEEP, faces_of

REPOSITORY = Path(service.__file__).parents[1]
_ERASED_LOOKED_FOR = 8
_ROUNDS_A_FOLDER = 10
_FACES_SEARCHED = 2_000


class Torture:
    """One folder, and what was said of the changes to it in all rounds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.said: dict[str, set[str]] = {word: set() for word in ("enrolling", "enrolled", "forgetting", "forgotten")}
        # What upkeep a kill fell into.
        self.struck: Counter[str] = Counter()

    def kill(self, number: int) -> None:
        """Run a worker and kill it at a moment that follows from the seed."""
        rng = random.Random(f"{self.seed}.{number}")
        command = [sys.executable, "-m", "tests.unit.gallery.torture_worker", str(self.folder), f"{self.seed}.{number}"]
        worker = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        # Half of the kills come at any time from the opening on, the others soon after some upkeep has begun.
        target = rng.choice((None, None, *UPKEEP[:1] * 2, *UPKEEP[2:]))
        timer = threading.Timer(rng.uniform(0.0, 0.8) if target is None else 8.0, worker.kill)
        within: list[str] = []
        skip = rng.randrange(4)
        for line in worker.stdout:
            word, *ids = line.split()
            if line.endswith("\n") and word in self.said:
                self.said[word].update(ids)
            elif word == "opening":
                timer.start()
            elif word == "within":
                within.append(ids[0])
                if ids[0] == target:
                    skip -= 1
                    if skip < 0:
                        threading.Timer(rng.uniform(0.0, 0.004), worker.kill).start()
            elif word == "past":
                within.remove(ids[0])
        timer.cancel()
        worker.stdout.close()
        assert worker.wait() == -9
        self.struck.update(within or ["other"])

    async def check(self) -> tuple[int, int]:
        """Compare the folder with what was said; persons and faces that are there."""
        gallery = open_embedded(self.folder, exact_up_to=0)
        if "g" not in {summary.name for summary in await gallery.galleries()}:
            assert not self.said["enrolled"]
            await gallery.close()
            return 0, 0
        persons = await gallery.persons("g", after=None, limit=10_000_000)
        there = [person.person_id for person in persons]
        assert len(there) == len(set(there))
        assert self.said["enrolled"] - self.said["forgetting"] <= set(there)
        assert not self.said["forgotten"] & set(there)
        assert set(there) <= self.said["enrolling"]
        for person in persons:
            assert list(person.face_ids) == faces_of(person.person_id)
        faces = [face_id for person in persons for face_id in person.face_ids]
        summary = await gallery.summary("g")
        assert (summary.persons, summary.faces) == (len(persons), len(faces))
        if faces:
            faces = random.Random(len(faces)).sample(faces, min(len(faces), _FACES_SEARCHED))
            probes = np.stack([embedding(face_id) for face_id in faces])
            for exact in (False, True):
                results = await gallery.search("g", probes, 1, exact=exact)
                assert [result.matches[0].face_id for result in results] == faces
                assert {result.gallery_size for result in results} == {summary.faces}
        await gallery.close()
        found = audit(self.folder)
        assert not found.findings, found.findings
        return summary.persons, summary.faces

    def check_erased(self, number: int) -> None:
        """Look for the bytes of some of those forgotten in every file."""
        rng = random.Random(number)
        forgotten = sorted(self.said["forgotten"])
        wanted = [
            embedding(face_id).tobytes()[:24]
            for person_id in rng.sample(forgotten, min(_ERASED_LOOKED_FOR, len(forgotten)))
            for face_id in faces_of(person_id)
        ]
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(each in content for each in wanted), path


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(help="The moments of the kills follow from it.")] = 1,
) -> None:
    """Kill a gallery's process again and again."""
    parent = Path(tempfile.mkdtemp(prefix="shrinkface-torture-"))
    typer.echo(f"seed {seed}, folders under {parent}")
    struck: Counter[str] = Counter()
    enrolled = forgotten = 0
    for first in range(0, rounds, _ROUNDS_A_FOLDER):
        # A folder of its own now and then: checks take as long as there are faces.
        torture = Torture(parent / str(first), seed)
        for number in range(first, min(first + _ROUNDS_A_FOLDER, rounds)):
            torture.kill(number)
            persons, faces = asyncio.run(torture.check())
            torture.check_erased(number)
        struck += torture.struck
        enrolled += len(torture.said["enrolled"])
        forgotten += len(torture.said["forgotten"])
        typer.echo(
            f"round {number + 1}: {enrolled} enrolments and {forgotten} deletions acknowledged so far, "
            f"{persons} persons and {faces} faces in the last folder"
        )
        shutil.rmtree(torture.folder)
    kinds = ", ".join(f"{name.strip('_')} {count}" for name, count in sorted(struck.items()))
    typer.echo(f"{rounds} of {rounds} rounds without a loss; kills fell within: {kinds}")
    shutil.rmtree(parent)


if __name__ == "__main__":
    typer.run(main)
