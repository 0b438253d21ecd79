"""The index where it is large enough for a sieve: a few hundred faces here, by its own setting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from service.gallery.index import FaceIndex
from service.gallery.search import Hit
from service.gallery.sieve import FEWEST_ROWS, Sieve
from tests.unit.gallery.test_index import brute_force, unit_rows

D = 32
COUNT = 3_000


def people(rng, count=COUNT, dimension=D):
    """`count` faces of a third as many persons, in the order of keys, as (person, face id, vector)."""
    centres = unit_rows(rng.normal(size=(count // 3, dimension)))
    persons = rng.integers(0, len(centres), count)
    rows = unit_rows(centres[persons] + 0.5 / dimension**0.5 * rng.normal(size=(count, dimension)))
    return [(int(person), f"{index:05}", row) for index, (person, row) in enumerate(zip(persons, rows, strict=True))]


def added(index, faces, start=0):
    index.add(
        np.arange(start, start + len(faces)),
        np.array([person for person, _, _ in faces]),
        [face_id for _, face_id, _ in faces],
        np.stack([vector for _, _, vector in faces]),
    )


def sifted_index(faces, **options):
    index = FaceIndex(faces[0][2].shape[0], sieve_from=FEWEST_ROWS, **options)
    added(index, faces)
    index.tend()
    assert index.sifted == len(faces)
    return index


def probes_near(rng, faces, count):
    chosen = rng.integers(0, len(faces), count)
    rows = np.stack([faces[i][2] for i in chosen])
    return unit_rows(rows + 0.3 / rows.shape[1] ** 0.5 * rng.normal(size=rows.shape))


@pytest.mark.parametrize("dimension", [D, 33])
def test_it_finds_whom_an_exact_search_finds_and_scores_exactly(dimension):
    rng = np.random.default_rng(0)
    faces = people(rng, dimension=dimension)
    index = sifted_index(faces)
    probes = probes_near(rng, faces, 100)
    found, size = index.search(probes, 1)
    assert size == COUNT
    assert found == [brute_force(faces, probe, 1) for probe in probes]
    exact, _ = index.search(probes, 10, exact=True)
    assert exact == [brute_force(faces, probe, 10) for probe in probes]
    ten, _ = index.search(probes, 10)
    for hits, expected in zip(ten, exact, strict=True):
        assert hits[0] == expected[0]
        assert len({hit.person for hit in hits}) == 10
        # Whoever else is named has the score that an exact search would give them, or a lesser face of theirs.
        best = {hit.person: hit.similarity for hit in expected}
        assert all(hit.similarity <= best.get(hit.person, 1.0) for hit in hits)
        assert len({hit.person for hit in hits} & best.keys()) >= 8


def test_fitting_takes_one_thread_and_leaves_the_others_to_searches(monkeypatch):
    seen = []
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 3)
    monkeypatch.setattr(faiss, "omp_set_num_threads", seen.append)
    rng = np.random.default_rng(0)
    Sieve.fitted(unit_rows(rng.normal(size=(FEWEST_ROWS, D))), gallery_rows=FEWEST_ROWS)
    assert seen == [1, 3]


def test_strangers_far_from_everybody_are_searched_for_more_deeply():
    rng = np.random.default_rng(1)
    faces = people(rng)
    index = sifted_index(faces)
    probes = unit_rows(rng.normal(size=(200, D)))
    found, _ = index.search(probes, 1)
    agree = [hits == brute_force(faces, probe, 1) for hits, probe in zip(found, probes, strict=True)]
    assert np.mean(agree) >= 0.99


def test_rows_behind_the_sieve_are_found_at_once_and_the_sieve_follows():
    rng = np.random.default_rng(2)
    faces = people(rng)
    index = sifted_index(faces[:1_000])
    added(index, faces[1_000:1_500], start=1_000)
    assert index.sifted == 1_000
    probes = np.stack([vector for _, _, vector in faces[1_000:1_500]])
    found, size = index.search(probes, 3)
    assert size == 1_500
    assert [hits[0] for hits in found] == [brute_force(faces[:1_500], probe, 1)[0] for probe in probes]
    # Few rows behind the sieve are left there; nine times as many as it was fitted to get a new one.
    index.tend()
    assert index.sifted == 1_000
    more = people(np.random.default_rng(3), 8_000)
    added(index, more, start=1_500)
    index.tend()
    assert index.sifted == 9_500


def test_removed_faces_are_never_found_and_the_upkeep_takes_them_out():
    rng = np.random.default_rng(4)
    faces = people(rng)
    index = sifted_index(faces)
    gone = np.sort(rng.permutation(COUNT)[:1_400])
    assert index.remove(gone) == 1_400
    left = [face for i, face in enumerate(faces) if i not in set(gone.tolist())]
    probes = np.stack([faces[i][2] for i in gone[:200]])
    expected = [brute_force(left, probe, 1) for probe in probes]
    before, size = index.search(probes, 1)
    assert (before, size) == (expected, 1_600)
    index.tend()
    assert index.sifted == 1_600
    assert index.search(probes, 1) == (expected, 1_600)
    assert index.remove(gone) == 0
    added(index, [(9_999, "new", faces[0][2])], start=COUNT)
    (hits,), _ = index.search(faces[0][2][None], 2)
    assert 9_999 in {hit.person for hit in hits}
    # Below the limit an index is exact again, and an empty one finds nobody.
    assert index.remove(np.arange(COUNT)) == 1_600
    index.tend()
    assert index.sifted == 0
    (hits,), size = index.search(faces[0][2][None], 5)
    assert ([hit.face_id for hit in hits], size) == (["new"], 1)


def test_an_index_with_every_face_removed_finds_nobody_before_the_upkeep_too():
    faces = people(np.random.default_rng(5), 900)
    index = sifted_index(faces)
    index.remove(np.arange(900))
    assert index.search(faces[0][2][None], 5) == ([[]], 0)


def test_one_person_with_most_faces_crowds_nobody_out():
    rng = np.random.default_rng(6)
    near = unit_rows(np.eye(D)[0] + 0.01 * rng.normal(size=(4_000, D)))
    faces = [(1, f"{i:05}", row) for i, row in enumerate(near)] + [(2, "other", unit_rows(-np.eye(D)[:1])[0])]
    index = sifted_index(faces)
    probe = np.eye(D, dtype=np.float32)[:1]
    (hits,), _ = index.search(probe, 2)
    assert hits == brute_force(faces, probe[0], 2)
    assert hits[1] == Hit(2, "other", -1.0)


def test_searches_see_whole_changes_while_the_upkeep_works():
    """Every change adds or removes two faces of one person, so sizes are even; who was added is found at once."""
    rng = np.random.default_rng(7)
    faces = people(rng, 900)
    stop, faults = threading.Event(), []
    with ThreadPoolExecutor(1) as upkeep:
        index = FaceIndex(D, sieve_from=FEWEST_ROWS, upkeep=upkeep.submit)
        added(index, faces)

        def search():
            probe = faces[0][2][None]
            while not stop.is_set():
                (hits,), size = index.search(probe, 20)
                if size % 2 or len({hit.person for hit in hits}) != 20:
                    faults.append((size, hits))

        searchers = [threading.Thread(target=search) for _ in range(2)]
        for thread in searchers:
            thread.start()
        pairs = unit_rows(rng.normal(size=(1_500, D)))
        sifted = set()
        for i, row in enumerate(pairs):
            key, person = 900 + 2 * i, 10_000 + i
            added(index, [(person, f"{i}a", row), (person, f"{i}b", row)], start=key)
            (hits,), _ = index.search(row[None], 1)
            if hits[0].face_id != f"{i}a":
                faults.append((i, hits))
            if i >= 100:
                assert index.remove(np.array([key - 200, key - 199])) == 2
                (hits,), _ = index.search(pairs[i - 100][None], 1)
                if hits[0].person == person - 100:
                    faults.append(("removed", i, hits))
            sifted.add(index.sifted)
        stop.set()
        for thread in searchers:
            thread.join()
    assert not faults
    # The upkeep did run: the sieve came, and was made anew without the rows that had been removed.
    assert len(sifted) > 2
    index.tend()
    assert len(index) == 900 + 200


def test_a_search_now_and_then_is_checked_against_an_exact_one(monkeypatch):
    faces = people(np.random.default_rng(8))
    jobs, checks = [], []
    index = sifted_index(faces, on_check=checks.append, upkeep=jobs.append)
    jobs.clear()
    probe = faces[0][2][None]
    for _ in range(3):
        index.search(probe, 1)
    index.search(probe, 1, exact=True)
    assert len(jobs) == 1
    # What was removed in between was there when the search ran, so it is no disagreement.
    index.remove(np.arange(COUNT - 1))
    jobs[0]()
    assert checks == [True]

    # A sieve that passes everybody over is found out.
    blind = sifted_index(faces, on_check=checks.append, upkeep=jobs.append)
    jobs.clear()
    view = blind._view
    monkeypatch.setattr(view.sieve, "candidates", lambda probes, depth, team: np.full((len(probes), depth), COUNT - 1))
    blind.search(probe, 1)
    jobs[0]()
    assert checks == [True, False]


def test_searches_go_deeper_when_checks_disagree_and_come_back(monkeypatch):
    index = sifted_index(people(np.random.default_rng(8)))
    depths = []
    view = index._view

    def candidates(probes, depth, team):
        depths.append(depth)
        return np.tile(np.arange(depth), (len(probes), 1))

    monkeypatch.setattr(view.sieve, "candidates", candidates)

    def depth() -> int:
        depths.clear()
        index.search(view.vectors[:1].copy(), 1)
        return depths[0]

    usual = depth()
    index._steer(agrees=False)
    assert depth() == int(1.5 * usual)
    for _ in range(50):
        index._steer(agrees=False)
    assert depth() == min(8 * usual, view.sieve.rows)
    # One in a thousand may disagree: so long it takes to forget one that did.
    index._caution = 1.5
    for _ in range(998):
        index._steer(agrees=True)
    assert 1 < index._caution < 1.001
    for _ in range(5):
        index._steer(agrees=True)
    assert depth() == usual
