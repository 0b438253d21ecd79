from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gallery.index import FaceIndex
from service.gallery.search import Hit

D = 4


def unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(faces: list[tuple[int, str, np.ndarray]], probe: np.ndarray, top_k: int) -> list[Hit]:
    """Every face (person, face id, vector) scored, the best of each person kept."""
    best: dict[int, Hit] = {}
    scored = [
        Hit(
            person,
            face_id,
            float(np.float32(np.clip(np.dot(vector.astype(np.float64), probe.astype(np.float64)), -1, 1))),
        )
        for person, face_id, vector in faces
    ]
    for hit in sorted(scored, key=lambda hit: (-hit.similarity, hit.face_id)):
        best.setdefault(hit.person, hit)
    return list(best.values())[:top_k]


def filled(faces: list[tuple[int, str, np.ndarray]], dimension: int = D, **options: int) -> FaceIndex:
    index = FaceIndex(dimension, **options)
    for start in range(0, len(faces), 7):
        part = faces[start : start + 7]
        index.add(
            np.arange(start, start + len(part)),
            np.array([person for person, _, _ in part]),
            [face_id for _, face_id, _ in part],
            np.stack([vector for _, _, vector in part]),
        )
    return index


# A coarse grid makes equal embeddings and equal scores common.
coarse = st.tuples(*[st.integers(-2, 2)] * D).filter(any)


@settings(max_examples=150, deadline=None)
@given(
    vectors=st.lists(coarse, min_size=1, max_size=60),
    persons=st.lists(st.integers(0, 6), min_size=60, max_size=60),
    order=st.permutations(range(60)),
    removed=st.sets(st.integers(0, 59)),
    probes=st.lists(coarse, min_size=1, max_size=3),
    limits=st.tuples(st.integers(1, 9), st.sampled_from([1, 40, 2048])),
)
def test_agrees_with_brute_force(*, vectors, persons, order, removed, probes, limits) -> None:
    top_k, deepest = limits
    rows = unit_rows(np.array(vectors))
    faces = [(persons[i], f"face-{order[i]:02}", rows[i]) for i in range(len(rows))]
    index = filled(faces, deepest_fetch=deepest)
    assert index.remove(np.array(sorted(removed), dtype=np.int64)) == len([i for i in removed if i < len(rows)])
    left = [face for i, face in enumerate(faces) if i not in removed]
    queries = unit_rows(np.array(probes))
    found, size = index.search(queries, top_k)
    assert size == len(left) == len(index)
    assert found == [brute_force(left, probe, top_k) for probe in queries]


@pytest.mark.parametrize("deepest", [1, 100, 2048])
@pytest.mark.parametrize("probe_count", [1, 30])
def test_agrees_with_brute_force_on_many_faces(deepest: int, probe_count: int) -> None:
    rng = np.random.default_rng(3)
    rows = unit_rows(rng.normal(size=(4_000, 32)))
    rows[1_000:1_400] = rows[0]
    persons = np.where(rng.random(4_000) < 0.3, 1, rng.integers(0, 2_000, 4_000))
    faces = [(int(persons[i]), f"{rng.integers(10**9):09}", rows[i]) for i in range(4_000)]
    index = filled(faces, 32, deepest_fetch=deepest)
    gone = rng.permutation(4_000)[:1_500]
    assert index.remove(np.sort(gone)) == 1_500
    kept = sorted(set(range(4_000)) - set(gone.tolist()))
    probes = unit_rows(rows[rng.integers(0, 1_400, probe_count)] + 0.05 * rng.normal(size=(probe_count, 32)))
    probes[0] = rows[0]
    for top_k in (1, 10):
        found, _ = index.search(probes, top_k)
        assert found == [brute_force([faces[i] for i in kept], probe, top_k) for probe in probes]


def test_one_person_with_thousands_of_faces_crowds_nobody_out() -> None:
    rows = unit_rows(np.stack([np.ones(5_001), np.linspace(0, 0.1, 5_001), *np.zeros((2, 5_001))], axis=1))
    rows[-1] = [-1, 0, 0, 0]
    faces = [(1, f"{i:05}", row) for i, row in enumerate(rows[:-1])] + [(2, "other", rows[-1])]
    (hits,), _ = filled(faces).search(rows[:1], 3)
    assert hits == [Hit(1, "00000", 1.0), Hit(2, "other", -1.0)]


def test_equal_embeddings_score_equally_wherever_they_stand() -> None:
    rng = np.random.default_rng(1)
    row = unit_rows(rng.normal(size=(1, 127)))
    rows = np.repeat(row, 501, axis=0)
    faces = [(i, f"{500 - i:03}", rows[i]) for i in range(501)]
    found, _ = filled(faces, 127).search(unit_rows(rng.normal(size=(40, 127))), 20)
    for hits in found:
        assert [hit.face_id for hit in hits] == [f"{i:03}" for i in range(20)]
        assert len({hit.similarity for hit in hits}) == 1


def test_removed_faces_make_room_and_keys_go_on() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(1_000, D)))
    faces = [(i, f"{i:04}", row) for i, row in enumerate(rows)]
    index = filled(faces)
    assert index.remove(np.arange(600)) == 600
    assert index.remove(np.arange(600)) == 0
    assert index.remove(np.array([5_000])) == 0
    index.add(np.array([1_000]), np.array([7]), ["new"], rows[:1])
    (hits,), size = index.search(rows[:1], 1)
    assert (hits[0].face_id, size) == ("new", 401)
    assert index.remove(np.arange(1_001)) == 401
    assert index.search(rows[:1], 1) == ([[]], 0)


def test_what_cannot_be_added_changes_nothing() -> None:
    index = filled([(1, "a", np.eye(D, dtype=np.float32)[0])])
    one = np.eye(D, dtype=np.float32)[:1]
    for keys, persons, ids, vectors in (
        ([0], [1], ["b"], one),
        ([3, 2], [1, 1], ["b", "c"], np.repeat(one, 2, axis=0)),
        ([2], [1], ["b", "c"], one),
        ([2], [1], ["b"], one[:, :2]),
    ):
        with pytest.raises(ValueError, match=r"ascend|differ"):
            index.add(np.array(keys), np.array(persons), ids, vectors)
    index.add(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), [], one[:0])
    assert len(index) == 1


def test_searches_see_whole_changes_while_others_write() -> None:
    """Every change adds or removes two faces of one person at once, so a size is even and both faces are there.

    Only those who are removed during a search may be answered for with blanked rows.
    """
    index = FaceIndex(D)
    pair = unit_rows(np.array([[1, 0, 0, 0], [1, 0.1, 0, 0]]))
    stop = threading.Event()
    faults: list[object] = []
    staying = [0]

    def search() -> None:
        while not stop.is_set():
            (hits,), size = index.search(pair[:1], 5_000)
            here = [hit for hit in hits if hit.person >= staying[0]]
            if size % 2 or len(hits) != size // 2 or any(not hit.face_id.endswith("a") for hit in here):
                faults.append((size, len(hits)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(1_500):
        index.add(np.array([2 * i, 2 * i + 1]), np.array([i, i]), [f"{i}a", f"{i}b"], pair)
        if i >= 200:
            staying[0] = i - 199
            assert index.remove(np.array([2 * i - 400, 2 * i - 399])) == 2
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
