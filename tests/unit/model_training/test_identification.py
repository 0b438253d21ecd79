"""Identification among distractors against ranks that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from model_training.protocols.density import EmbeddingModel, fitted
from model_training.protocols.distractors import (
    NOBODY,
    Faces,
    NormalDistractors,
    PictureDistractors,
    SmoothedDistractors,
    around,
)
from model_training.protocols.embedding import Embedded, ProtocolError, embedded
from model_training.protocols.identification import Probes, identification, identify, probes_of
from model_training.protocols.metrics import TooFewImpostors


def at(*degrees):
    """Unit vectors in a plane."""
    turns = np.deg2rad(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def looked_for(mates, strangers, *, person=None, unseen=None):
    """Probes at 0 degrees whose mates lie where it says."""
    person = np.arange(len(mates)) if person is None else np.array(person)
    return Probes(
        mated=at(*[0] * len(mates)),
        similarity=at(*mates)[:, 0],
        person=person,
        unseen=np.zeros(person.max() + 1, dtype=np.int64) if unseen is None else np.array(unseen),
        strangers=at(*strangers),
        label=person,
        stranger_label=np.arange(len(strangers)) + 10_000,
    )


STRANGERS = np.linspace(120, 179, 1_000)


def test_ranks_are_one_more_than_the_distractors_that_come_before():
    # Of four distractors none, one, two and all are nearer than the mates.
    probes = looked_for([5, 15, 25, 80], STRANGERS)
    (figure,) = identify(probes, PictureDistractors(at(10, 20, 50, 70)), [4])
    assert figure.rank_one == pytest.approx(1 / 4)
    assert figure.cmc[:5] == pytest.approx((1 / 4, 2 / 4, 3 / 4, 3 / 4, 1.0))
    assert (figure.distractors, figure.kind, figure.galleries) == (4, "pictures", 5)


def test_a_distractor_as_near_as_the_mate_comes_before_it():
    (figure,) = identify(looked_for([10], STRANGERS), PictureDistractors(at(10, 90)), [2])
    assert figure.cmc[:2] == (0.0, 1.0)


def test_every_person_weighs_the_same_and_faceless_probes_are_missed():
    """Person 0: three probes found. Person 1: one found, one with a nearer distractor, and two without a face."""
    probes = looked_for([5, 5, 5, 5, 40], STRANGERS, person=[0, 0, 0, 1, 1], unseen=[0, 2])
    (figure,) = identify(probes, PictureDistractors(at(20)), [1])
    assert figure.rank_one == pytest.approx((1 + 1 / 4) / 2)
    assert figure.cmc[1] == pytest.approx((1 + 2 / 4) / 2)


def test_fnir_is_taken_where_one_stranger_in_a_hundred_is_accepted():
    """A stranger at s degrees is as near to the one distractor, at 180, as cos(180 - s)."""
    mates = [2, 40, 50, 60]
    nearness = np.array([30.0] * 10 + [45.0] + [88.0] * 989)
    probes = looked_for(mates, 180 - nearness)
    (figure,) = identify(probes, PictureDistractors(at(180)), [1])
    # Ten of a thousand may pass, so the threshold is just above 45 degrees, which leaves the mates at 2 and 40.
    assert figure.threshold == pytest.approx(np.cos(np.deg2rad(45)), abs=1e-6)
    assert (figure.rank_one, figure.fnir) == (1.0, 0.5)
    assert figure.rank_one_interval == (1.0, 1.0)
    # With four people drawn again, between none and all are missed.
    assert figure.fnir_interval == (0.0, 1.0)


def test_intervals_narrow_with_the_number_of_people():
    def width(people):
        mates = np.where(np.arange(people) % 2, 10, 40)
        (figure,) = identify(looked_for(mates, STRANGERS), PictureDistractors(at(20)), [1])
        assert figure.rank_one_interval.low < figure.rank_one == 0.5 < figure.rank_one_interval.high
        return figure.rank_one_interval.high - figure.rank_one_interval.low

    # 2 * 1.96 * sqrt(0.25 / n)
    assert width(100) == pytest.approx(0.196, rel=0.15)
    assert width(1_600) == pytest.approx(0.049, rel=0.15)


def test_strangers_too_few_for_the_rate_are_refused():
    with pytest.raises(TooFewImpostors, match=r"999 strangers cannot support an FPIR of 0\.01: it needs 1,000"):
        identify(looked_for([5], STRANGERS[:999]), PictureDistractors(at(10)), [1])


def test_tar_is_taken_where_one_comparison_in_a_million_is_accepted():
    """Five hundred probes at 0 degrees, 20,000 distractors: ten of ten million comparisons may pass."""
    angles = np.full(20_000, 120.0)
    # Of all probes: one distractor at 30 degrees is 500 comparisons, too many; so nothing may reach cos 30.
    angles[7] = 30
    mates = np.where(np.arange(500) < 100, 29, 31)
    (figure,) = identify(looked_for(mates, STRANGERS), PictureDistractors(at(*angles)), [20_000])
    assert figure.tar == pytest.approx(0.2)
    assert figure.tar_interval.low < 0.2 < figure.tar_interval.high
    # Of less than ten million comparisons nobody can say.
    (figure,) = identify(looked_for(mates[:499], STRANGERS), PictureDistractors(at(*angles)), [20_000])
    assert (figure.tar, figure.tar_interval) == (None, None)


def test_numbers_of_distractors_that_there_are_not_are_left_out():
    figures = identify(looked_for([5], STRANGERS), PictureDistractors(at(10, 20)), [1, 2, 3])
    assert [figure.distractors for figure in figures] == [1, 2]


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3_300, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    probes = Probes(
        mated=rows[:300],
        similarity=np.full(300, 0.7, np.float32),
        person=np.arange(300),
        unseen=np.zeros(300, np.int64),
        strangers=rows[300:1_400],
        label=np.arange(300),
        stranger_label=np.arange(300, 1_400),
    )
    distractors = PictureDistractors(rows[1_400:])
    whole = identify(probes, distractors, [100, 1_900])
    monkeypatch.setattr("model_training.protocols.identification._SCORES_AT_ONCE", 100_000)
    assert identify(probes, distractors, [100, 1_900]) == whole
    chosen = rows[1_400:][np.random.default_rng([0, 0]).permutation(1_900)]
    assert whole[1].rank_one == pytest.approx(((probes.mated @ chosen.T).max(axis=1) < 0.7).mean())


PEOPLE = {
    "Ada": [Path("a1"), Path("a2"), Path("a3")],
    "Bob": [Path("b1"), Path("b2")],
    "Eve": [Path("e1")],
    "Kim": [Path("k1"), Path("k2")],
}


class TestProbesOf:
    def found(self, faceless):
        angles = {"a1": 0, "a2": 10, "a3": 30, "b1": 90, "b2": 110, "e1": 200, "k1": 250, "k2": 290}
        return embedded(PEOPLE, lambda path: None if path.name in faceless else at(angles[path.name])[0])

    def test_one_picture_is_the_mate_and_the_others_are_probes(self):
        probes = probes_of(self.found(()), PEOPLE)
        assert probes.person.tolist() == [0, 0, 1, 2]
        assert probes.similarity[2:] == pytest.approx(np.cos(np.deg2rad([20, 40])))
        assert probes.strangers == pytest.approx(at(200))
        mate_of_ada = {frozenset((10, 30)), frozenset((10, 20)), frozenset((20, 30))}
        apart = frozenset(np.rint(np.rad2deg(np.arccos(probes.similarity[:2]))).astype(int).tolist())
        assert apart in mate_of_ada

    def test_a_picture_without_a_face_is_a_probe_that_nobody_finds(self):
        probes = probes_of(self.found(("a2", "b1", "k1", "k2")), PEOPLE)
        # Bob's mate has a faceless probe and no other; Kim cannot be asked for at all.
        assert probes.person.tolist() == [0]
        assert probes.unseen.tolist() == [1, 1]

    def test_other_draws_take_other_mates(self):
        draws = {tuple(probes_of(self.found(()), PEOPLE, seed=seed).similarity[:2].tolist()) for seed in range(20)}
        assert len(draws) > 1

    def test_nobody_with_two_pictures_is_refused(self):
        with pytest.raises(ProtocolError, match="two pictures"):
            probes_of(Embedded(at(0, 90), ("Ada", "Bob"), ()), {"Ada": [Path("a1")], "Bob": [Path("b1")]})

    def test_no_face_at_all_is_refused(self):
        with pytest.raises(ProtocolError, match="no face in any of 8 pictures"):
            embedded(PEOPLE, lambda _: None)


def model_of(between, within):
    mean = np.zeros(len(between), dtype=np.float32)
    return EmbeddingModel(mean, np.diag(between).astype(np.float32), np.diag(within).astype(np.float32), np.float32(0))


class TestNormalDistractors:
    MODEL = model_of([0.9, 0.5, 0.1, 0.1], [0.2, 0.1, 0.1, 0.1])

    def test_they_are_unit_vectors_and_the_same_every_time(self):
        drawn = [
            np.concatenate([faces.vectors for faces in NormalDistractors(self.MODEL, 50_000).drawn(20_000, 0)])
            for _ in range(2)
        ]
        assert drawn[0].shape == (20_000, 4)
        np.testing.assert_array_equal(drawn[0], drawn[1])
        np.testing.assert_allclose(np.linalg.norm(drawn[0], axis=1), 1, atol=1e-6)

    def test_other_draws_differ(self):
        supply = NormalDistractors(self.MODEL, 100)
        first, second = (next(supply.drawn(100, draw)).vectors for draw in (0, 1))
        assert not np.isclose(first, second).all(axis=1).any()

    def test_they_are_spread_as_persons_and_faces_together(self):
        drawn = np.concatenate([faces.vectors for faces in NormalDistractors(self.MODEL, 200_000).drawn(200_000, 0)])
        share = (drawn**2).mean(axis=0)
        assert (np.argsort(share)[::-1][:2] == [0, 1]).all()
        assert share[2] == pytest.approx(share[3], abs=0.005)


class TestSmoothedDistractors:
    def real(self, count=400):
        """Faces on two arcs, which no normal density has."""
        rng = np.random.default_rng(0)
        return at(*np.where(np.arange(count) % 2, 20, 100) + rng.uniform(-10, 10, count))

    def drawn(self, rows, like, count=30_000):
        chunks = list(SmoothedDistractors(rows, like, count).drawn(count, 0))
        return Faces(*(np.concatenate(part) for part in zip(*chunks, strict=True)))

    def test_they_are_near_real_ones_and_say_whose(self):
        rows = self.real()
        faces = self.drawn(rows, np.arange(len(rows)))
        np.testing.assert_allclose(np.linalg.norm(faces.vectors, axis=1), 1, atol=1e-6)
        assert np.median(np.einsum("nd,nd->n", faces.vectors, rows[faces.like])) > 0.95
        assert np.bincount(faces.like, minlength=400).min() > 30
        # Nobody was between the arcs.
        angles = np.rad2deg(np.arctan2(faces.vectors[:, 1], faces.vectors[:, 0]))
        assert ((angles > 55) & (angles < 65)).mean() < 0.06

    def test_they_are_spread_as_the_real_ones(self):
        rng = np.random.default_rng(1)
        rows = rng.standard_normal((5_000, 6)).astype(np.float32) * np.array([3, 2, 1, 1, 1, 1], dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        faces = self.drawn(rows, np.full(5_000, NOBODY))
        np.testing.assert_allclose(np.cov(faces.vectors.T), np.cov(rows.T), atol=0.03)

    def test_they_are_around_one_face_of_everybody(self):
        found = Embedded(at(0, 90, 180), ("Ada", "Ada", "Bob"), ())
        faces = Faces(*(np.concatenate(part) for part in zip(*around(found, at(270), 500).drawn(500, 0), strict=True)))
        assert set(faces.like.tolist()) == {0, 1, NOBODY}


def test_what_was_drawn_around_a_person_is_not_among_their_distractors():
    class Given:
        kind, available = "smoothed", 4

        def drawn(self, count, draw):
            # Nearer to every probe, at 0 degrees, than the mates; and as near as can be to two of the strangers.
            yield Faces(at(1, 1, 120, 121), np.array([0, 1, 10_000, NOBODY]))

    person_two = looked_for([5, 5, 5], STRANGERS)
    (figure,) = identify(person_two, Given(), [4], fpir=0.01)
    # Persons 0 and 1 meet the face that is like the other, person 2 both.
    assert figure.cmc[:3] == pytest.approx((0.0, 2 / 3, 1.0))
    tally_free = looked_for([5], [120] * 1_000)
    (figure,) = identify(tally_free, Given(), [4], fpir=0.01)
    # All strangers but the first meet their double; that one the face a degree away.
    assert figure.threshold == pytest.approx(1.0, abs=1e-6)


def test_a_protocol_from_pictures_with_a_density_of_their_embeddings():
    """People far apart in many dimensions are found whoever else is there."""
    rng = np.random.default_rng(0)
    people = {f"p{n}": [Path(f"p{n}/{k}") for k in range(2 if n < 40 else 1)] for n in range(1_040)}
    centres = rng.standard_normal((1_040, 64))

    def embed(path):
        vector = centres[int(path.parent.name[1:])] + 0.1 * int(path.name)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    figures = identification(
        people, embed, lambda found: NormalDistractors(fitted(found.vectors, found.labels), 1_000), [10, 1_000]
    )
    assert [(figure.distractors, figure.kind) for figure in figures] == [(10, "normal"), (1_000, "normal")]
    assert [figure.rank_one for figure in figures] == [1.0, 1.0]
    assert [figure.fnir for figure in figures] == [0.0, 0.0]
    assert figures[0].threshold < figures[1].threshold
