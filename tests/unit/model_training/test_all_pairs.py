"""Every picture against every other, against rates counted pair by pair."""

import itertools

import numpy as np
import pytest

from model_training.protocols.all_pairs import all_pairs
from model_training.protocols.metrics import TooFewImpostors, threshold_at


def faces(people, pictures, *, seed=0, noise=0.6, dimension=12):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), pictures)
    rows = rng.standard_normal((people, dimension))[labels] + noise * rng.standard_normal((len(labels), dimension))
    order = rng.permutation(len(labels))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)[order]
    return rows, labels[order]


def test_rates_are_those_of_a_list_of_all_pairs(monkeypatch):
    monkeypatch.setattr("model_training.protocols.all_pairs._ROWS", 17)
    rows, labels = faces(60, [1, 2, 5] * 20)
    pairs = list(itertools.combinations(range(len(rows)), 2))
    scores = np.array([rows[a] @ rows[b] for a, b in pairs], dtype=np.float32)
    same = np.array([labels[a] == labels[b] for a, b in pairs])
    result = all_pairs(rows, labels, fars=(0.05, 0.005, 1e-6))
    assert (result.impostors, result.mates, result.people) == ((~same).sum(), same.sum(), 60)
    assert set(result.rates) == {0.05, 0.005}
    for far, rate in result.rates.items():
        threshold = threshold_at(scores[~same], far)
        assert rate.threshold == pytest.approx(threshold, abs=1e-6)
        assert rate.tar == pytest.approx((scores[same] >= threshold).mean(), abs=1e-9)
        shares = [
            np.mean([scores[n] >= threshold for n, (a, b) in enumerate(pairs) if labels[a] == labels[b] == person])
            for person in range(60)
            if (labels == person).sum() > 1
        ]
        assert rate.by_person == pytest.approx(np.mean(shares), abs=1e-9)
        assert rate.tar_interval.low <= rate.tar <= rate.tar_interval.high
        assert rate.by_person_interval.low < rate.by_person < rate.by_person_interval.high


def test_one_person_of_many_pictures_decides_only_the_rate_of_pairs():
    """Thirty people of two pictures that are alike, one of thirty that are all different: 30 pairs against 435."""
    rows, labels = faces(60, [2] * 60, noise=0.0, dimension=40)
    many, _ = faces(30, [1] * 30, seed=1, dimension=40)
    result = all_pairs(np.concatenate([rows, many]), np.concatenate([labels, np.full(30, 60)]), fars=(0.005,))
    rate = result.rates[0.005]
    assert rate.tar == pytest.approx(60 / 495, abs=0.03)
    assert rate.by_person == pytest.approx(60 / 61, abs=0.01)
    # Who draws that person again or not sees the one rate change a lot, the other little.
    assert rate.tar_interval.high - rate.tar_interval.low > 0.5
    assert rate.by_person_interval.high - rate.by_person_interval.low < 0.06


def test_drawn_again_the_interval_covers_other_people():
    truth = all_pairs(*faces(900, [2] * 900, seed=99, noise=0.7), fars=(0.002,)).rates[0.002].tar
    inside = 0
    for seed in range(8):
        interval = all_pairs(*faces(100, [2] * 100, seed=seed, noise=0.7), fars=(0.002,)).rates[0.002].tar_interval
        assert 0.05 < interval.high - interval.low < 0.4
        inside += interval.low <= truth <= interval.high
    assert inside >= 6


def test_no_supported_rate_is_refused():
    rows, labels = faces(10, [2] * 10)
    with pytest.raises(TooFewImpostors, match="180 impostor comparisons"):
        all_pairs(rows, labels, fars=(0.05, 1e-3))


def test_people_of_one_picture_are_refused():
    rows, labels = faces(100, [1] * 100)
    with pytest.raises(ValueError, match="two pictures"):
        all_pairs(rows, labels, fars=(0.01,))
