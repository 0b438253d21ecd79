"""Changes a gallery from several tasks until it is killed; prints what it begins and what is acknowledged.

    python -m tests.unit.gallery.torture_worker FOLDER PREFIX

The limits that say when an index is put in order are lowered, so that some hundreds of changes bring snapshots,
switches of the sieve and compactions about, and the worker prints when it is within one.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.domain import PersonRecord
from service.gallery import index
from service.gallery.embedded import EmbeddedGallery
from service.gallery.index import FaceIndex
from tests.unit.gallery.common import new_face, open_embedded

TASKS = 8
UPKEEP = ("_move", "_fit", "_extend", "_save")


def faces_of(person_id: str) -> list[str]:
    """1 to 3 face ids, following from the person id."""
    return [f"{person_id}-{i}" for i in range(1 + len(person_id) % 3)]


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def announced(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def announcing(*arguments: Any) -> Any:
        say("within", name)
        result = call(*arguments)
        say("past", name)
        return result

    return announcing


def hasten() -> None:
    """Have upkeep happen all the time."""
    vars(index).update(_UNSAVED_ROWS=48, _TAIL_ROWS=32, _COMPACT_FROM=16, _REFIT_GROWTH=2)
    for name in UPKEEP:
        setattr(FaceIndex, name, announced(name, getattr(FaceIndex, name)))


async def work(gallery: EmbeddedGallery, prefix: str) -> None:
    rng = random.Random(prefix)
    enrolled: list[str] = []
    number = 0
    while True:
        ids = [f"{prefix}-{number + i}" for i in range(rng.choice((1, 1, 1, 40)))]
        number += len(ids)
        say("enrolling", *ids)
        if len(ids) == 1:
            await gallery.enrol("g", ids[0], None, {}, [new_face(face_id) for face_id in faces_of(ids[0])])
        else:
            records = [PersonRecord(id_, None, {}, tuple(map(new_face, faces_of(id_)))) for id_ in ids]
            await gallery.import_persons("g", records)
        say("enrolled", *ids)
        enrolled += ids
        # As many go as come, so that compactions do not become rare.
        while len(enrolled) > 30:
            victim = enrolled.pop(rng.randrange(len(enrolled)))
            say("forgetting", victim)
            await gallery.forget_person("g", victim)
            say("forgotten", victim)


async def main(folder: Path, prefix: str) -> None:
    hasten()
    say("opening")
    gallery = open_embedded(folder, exact_up_to=0)
    await asyncio.gather(*(work(gallery, f"{prefix}.{task}") for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
