"""Concurrent searches share runs, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from service.domain import Match, NotReady, Overloaded, PersonRecord
from service.gallery.readers import Readers
from service.gallery.sharing import MOST_PROBES, SharedSearches
from service.ports import SearchResult
from tests.unit.gallery.common import DIMENSION, embedding, new_face, open_embedded

pytestmark = pytest.mark.anyio


class Runs:
    """Answers a probe with a match whose similarity is the probe's first value, and waits while it is held."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def search(self, gallery: str, probes: np.ndarray, top_k: int) -> list[SearchResult]:
        self.seen.append((gallery, len(probes), top_k))
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return [SearchResult((Match(gallery, "f", float(probe[0]), None),), len(probes)) for probe in probes]


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    made = Readers(4, 100)
    yield made
    made.close()


def probes(*values: float) -> np.ndarray:
    return np.array([[value, 0.0] for value in values], dtype=np.float32)


def first(results: list[SearchResult]) -> list[float]:
    return [round(result.matches[0].similarity, 3) for result in results]


async def begun(
    searches: SharedSearches, *asked: tuple[str, np.ndarray, int]
) -> list[asyncio.Task[list[SearchResult]]]:
    """The searches, each asked for before the next; the first alone has begun to run."""
    tasks = []
    for each in asked:
        tasks.append(asyncio.create_task(searches.search(*each)))
        # The second turn of the loop is the runner's.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_one_runs_makes_up_the_next_run(readers: Readers) -> None:
    runs = Runs()
    searches = SharedSearches(runs.search, readers, runners=1, max_pending=100)
    tasks = await begun(
        searches,
        ("a", probes(0.1), 5), ("a", probes(0.2, 0.3), 5), ("b", probes(0.4), 5), ("a", probes(0.5), 1),
        ("a", probes(0.6), 5),
    )  # fmt: skip
    runs.go.set()
    answers = await asyncio.gather(*tasks)
    assert [first(each) for each in answers] == [[0.1], [0.2, 0.3], [0.4], [0.5], [0.6]]
    assert runs.seen == [("a", 1, 5), ("a", 3, 5), ("b", 1, 5), ("a", 1, 1)]


async def test_runs_are_bounded_in_size_and_in_number(readers: Readers) -> None:
    runs = Runs()
    searches = SharedSearches(runs.search, readers, runners=2, max_pending=100)
    many = probes(*(0.01 * number for number in range(MOST_PROBES + 4)))
    asked = [("a", probes(0.5), 5)] * (MOST_PROBES + 3)
    tasks = await begun(searches, ("a", probes(0.9), 5), ("a", many, 5), *asked)
    assert [count for _, count, _ in runs.seen] == [1, MOST_PROBES + 4]
    runs.go.set()
    answers = await asyncio.gather(*tasks)
    assert len(answers[1]) == MOST_PROBES + 4
    assert sorted(count for _, count, _ in runs.seen[2:]) == [3, MOST_PROBES]


async def test_errors_reach_all_of_a_run_and_nobody_else(readers: Readers) -> None:
    runs = Runs()
    searches = SharedSearches(runs.search, readers, runners=1, max_pending=2)
    runs.error = ValueError("damaged")
    running, *waiting = await begun(searches, ("a", probes(0.1), 5), ("a", probes(0.2), 5), ("a", probes(0.3), 5))
    with pytest.raises(Overloaded):
        await searches.search("a", probes(0.4), 5)
    # Who goes away is not searched for.
    waiting[0].cancel()
    runs.go.set()
    outcomes = await asyncio.gather(running, *waiting, return_exceptions=True)
    assert [type(each) for each in outcomes] == [ValueError, asyncio.CancelledError, ValueError]
    assert [count for _, count, _ in runs.seen] == [1, 1]
    runs.error = None
    assert first(await searches.search("a", probes(0.5), 5)) == [0.5]
    readers.refuse()
    with pytest.raises(NotReady):
        await searches.search("a", probes(0.5), 5)


async def test_a_gallery_answers_many_at_once_like_one_after_another(tmp_path: Path) -> None:
    gallery = await asyncio.to_thread(open_embedded, tmp_path, exact_up_to=0)
    names = [f"p{number}" for number in range(2_000)]
    await gallery.import_persons("g", [PersonRecord(name, None, {}, (new_face(f"{name}-f"),)) for name in names])
    drift = np.random.default_rng(0).normal(size=(60, DIMENSION)).astype(np.float32)
    asked = np.stack([embedding(f"{name}-f") for name in names[:60]]) + 0.05 * drift
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    alone = [await gallery.search("g", probe[None], 3) for probe in asked]
    together = await asyncio.gather(*(gallery.search("g", probe[None], 3) for probe in asked))
    assert [result[0].matches[0].person_id for result in together] == names[:60]
    # The places behind the first come of codes, whose ties another batch may break in another way.
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    assert same >= 57
    await gallery.close()
