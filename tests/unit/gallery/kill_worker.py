"""Enrols and forgets from several tasks until it is killed; prints what it begins and what is acknowledged."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from service.gallery.embedded import EmbeddedGallery
from tests.unit.gallery.common import new_face, open_embedded


def faces_of(person_id: str) -> list[str]:
    """1 to 3 face ids, following from the person id."""
    return [f"{person_id}-{i}" for i in range(1 + len(person_id) % 3)]


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def work(gallery: EmbeddedGallery, prefix: str) -> None:
    number = 0
    while True:
        person_id = f"{prefix}-{number}"
        say("enrolling", person_id)
        await gallery.enrol("g", person_id, None, {}, [new_face(face_id) for face_id in faces_of(person_id)])
        say("enrolled", person_id)
        if number % 4 == 3:
            victim = f"{prefix}-{number - 2}"
            say("forgetting", victim)
            await gallery.forget_person("g", victim)
            say("forgotten", victim)
        number += 1


async def main(folder: Path, round_: str) -> None:
    gallery = open_embedded(folder)
    await asyncio.gather(*(work(gallery, f"{round_}.{task}") for task in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
