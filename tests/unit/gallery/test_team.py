from __future__ import annotations

import threading

import numpy as np
import pytest

from service.gallery import sieve
from service.gallery.index import FaceIndex
from service.gallery.sieve import Sieve
from service.gallery.team import Team

D = 32


def rows(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(count, D))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_parts_are_shared_only_while_one_search_runs() -> None:
    team = Team(1)
    both = threading.Barrier(2)

    def meet() -> int:
        # Passes only when two threads are here at once.
        both.wait(timeout=10)
        return threading.get_ident()

    with team.searching():
        assert len(set(team.run([meet, meet]))) == 2
        with team.searching():
            assert set(team.run([threading.get_ident] * 4)) == {threading.get_ident()}
    team.close()
    assert team.run([lambda: 1, lambda: 2]) == [1, 2]


def test_a_failing_part_is_heard_of() -> None:
    team = Team(1)

    def fail() -> int:
        raise ValueError("no")

    for parts in ([fail, int, int, int], [int, int, int, fail]):
        with pytest.raises(ValueError, match="no"):
            team.run(parts)
    team.close()


def test_shards_answer_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, team = rows(5_000), Team(2)
    whole = Sieve.fitted(matrix, gallery_rows=5_000)
    one = whole.extended(matrix)
    monkeypatch.setattr(sieve, "SHARD_ROWS", 1_100)
    several = whole.extended(matrix[:900]).extended(matrix[900:1_200]).extended(matrix[1_200:])
    assert one.rows == several.rows == 5_000
    assert (len(one._shards), len(several._shards)) == (1, 5)
    for depth in (1, 40, 1_500, 5_000):
        expected, got = one.candidates(matrix[:20], depth, team), several.candidates(matrix[:20], depth, team)
        assert got.shape == (20, depth)
        # Codes that are equal may come in either order.
        overlap = [len(np.intersect1d(a, b)) / depth for a, b in zip(expected, got, strict=True)]
        assert min(overlap) > 0.9
    assert several.emptied().rows == 0
    team.close()


def test_an_index_with_a_team_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "SHARD_ROWS", 500)
    matrix, team = rows(3_000), Team(3)
    alone, helped = FaceIndex(D, sieve_from=0), FaceIndex(D, sieve_from=0, team=team)
    for index in (alone, helped):
        index.add(np.arange(3_000), np.arange(3_000), [f"f{i}" for i in range(3_000)], matrix)
        index.tend()
        assert index.sifted == 3_000
    for probe in matrix[:50]:
        assert alone.search(probe[None], 3) == helped.search(probe[None], 3)
    team.close()
