"""Intervals by person against what theory says."""

import numpy as np
import pytest

from model_training.protocols.bootstrap import people_drawn, ratio_interval


def test_independent_events_give_the_binomial_interval():
    missed = np.zeros(2_000)
    missed[:200] = 1
    low, high = ratio_interval(missed, np.ones(2_000))
    # 0.1 +- 1.96 * sqrt(0.1 * 0.9 / 2000)
    assert (low, high) == pytest.approx((0.0869, 0.1131), abs=0.002)


def test_events_of_one_person_count_as_one():
    """Ten comparisons of each of a hundred people, all ten alike: as wide as for a hundred comparisons."""
    missed = np.where(np.arange(100) < 50, 10.0, 0.0)
    low, high = ratio_interval(missed, np.full(100, 10.0))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), rel=0.15)


def test_a_rate_that_is_the_same_for_everybody_has_no_width():
    assert ratio_interval(np.array([1.0, 2.0, 3.0]), np.array([4.0, 8.0, 12.0])) == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(("numerators", "denominators"), [([], []), ([1.0], [0.0]), ([1.0, 1.0], [1.0])])
def test_nothing_to_divide_by_is_refused(numerators, denominators):
    with pytest.raises(ValueError, match="interval"):
        ratio_interval(np.array(numerators), np.array(denominators))


def test_draws_keep_the_number_of_people_in_blocks_of_bounded_size(monkeypatch):
    monkeypatch.setattr("model_training.protocols.bootstrap._WEIGHTS_AT_ONCE", 100)
    blocks = list(people_drawn(30, 10, np.random.default_rng(0)))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert (np.concatenate(blocks).sum(axis=1) == 30).all()
