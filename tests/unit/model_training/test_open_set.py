"""Open-set identification against counts that can be made by hand."""

import numpy as np
import pytest

from model_training.protocols.metrics import TooFewImpostors
from model_training.protocols.open_set import open_set


def axes(*numbers):
    """Unit vectors along axes of a space of 40: people who have nothing in common."""
    return np.eye(40, dtype=np.float32)[list(numbers)]


def constant(value):
    return lambda rate, size: value


def test_strangers_who_look_like_nobody_are_never_identified():
    (figure,) = open_set(axes(*range(20)), [str(i) for i in range(20)], constant(0.5), size=10, rates=[0.1])
    assert (figure.observed, figure.interval, figure.strangers, figure.mates) == (0.0, (0.0, 0.0), 10, 0)
    assert figure.different_strangers == 20
    assert np.isnan(figure.missed)


def test_strangers_who_look_like_everybody_always_are():
    same = np.repeat(axes(0), 20, axis=0)
    (figure,) = open_set(same, [str(i) for i in range(20)], constant(0.5), size=10, rates=[0.1])
    assert figure.observed == 1.0


def test_the_share_is_that_of_strangers_with_a_double_in_the_gallery():
    """Twenty people in pairs of doubles: a stranger is taken for somebody when their double is enrolled."""
    rows = axes(*(number // 2 for number in range(20)))
    (figure,) = open_set(rows, [str(i) for i in range(20)], constant(0.9), size=10, rates=[0.1], trials=400)
    # Of the 19 others ten are enrolled.
    assert figure.observed == pytest.approx(10 / 19, abs=0.03)
    assert figure.interval[0] < figure.observed < figure.interval[1]


def test_enrolled_people_are_missed_below_the_threshold_or_behind_somebody_else():
    """Each has two pictures; of persons 0 to 4 the second is another person's face, of 5 to 9 it is too far away."""
    first = axes(*range(20))
    second = first.copy()
    second[:5] = axes(*range(1, 6))
    second[5:10] = 0.6 * axes(*range(5, 10)) + 0.8 * axes(*range(25, 30))
    rows, names = np.concatenate([first, second]), [str(i) for i in range(20)] * 2
    (figure,) = open_set(rows, names, constant(0.7), size=18, rates=[0.5], trials=200)
    # Ten of twenty are missed whichever of their pictures is enrolled.
    assert figure.missed == pytest.approx(0.5, abs=0.03)
    assert figure.mates == 200 * 18


def test_distractors_fill_the_gallery_and_can_be_matched():
    people, others = axes(*range(10)), axes(*range(30))
    names = [str(i) for i in range(10)]
    (figure,) = open_set(people, names, constant(0.9), size=35, rates=[0.2], distractors=others, enrolled=5, trials=50)
    # All thirty distractors are there, a double of every stranger among them.
    assert (figure.size, figure.observed, figure.strangers) == (35, 1.0, 5)


def test_the_threshold_is_asked_for_by_rate_and_size():
    asked = []

    def threshold(rate, size):
        asked.append((rate, size))
        return 0.5

    figures = open_set(axes(*range(20)), [str(i) for i in range(20)], threshold, size=8, rates=[0.1, 0.5])
    assert asked == [(0.1, 8), (0.5, 8)]
    assert [figure.asked for figure in figures] == [0.1, 0.5]


def test_a_rate_that_no_stranger_can_show_is_refused():
    rows, names = axes(*range(20)), [str(i) for i in range(20)]
    with pytest.raises(
        TooFewImpostors, match=r"990 probes of strangers cannot support an FPIR of 0\.01: it needs 1,000"
    ):
        open_set(rows, names, constant(0.5), size=10, rates=[0.1, 0.01], trials=99)
    open_set(rows, names, constant(0.5), size=10, rates=[0.1, 0.01], trials=100)


def test_the_interval_is_of_people_and_does_not_shrink_with_trials():
    """One stranger in ten is everybody's double: as many as there are people, not as there are trials."""
    rows = axes(*range(39)).repeat(10, axis=0)
    rows[::10] = axes(39)
    names = [str(i) for i in range(390)]

    def width(trials):
        (figure,) = open_set(rows, names, constant(0.9), size=30, rates=[0.1], trials=trials)
        assert figure.interval.low < figure.observed < figure.interval.high
        return figure.interval.high - figure.interval.low

    assert width(400) == pytest.approx(width(40), rel=0.35)


@pytest.mark.parametrize(("size", "enrolled"), [(20, None), (12, 5), (4, 5)])
def test_a_gallery_that_cannot_be_made_is_refused(size, enrolled):
    with pytest.raises(ValueError, match="do not make a gallery"):
        open_set(
            axes(*range(20)), [str(i) for i in range(20)], constant(0.5), size=size, rates=[0.5], enrolled=enrolled
        )


def test_the_same_seed_draws_the_same():
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [str(i // 2) for i in range(60)]
    runs = [open_set(rows, names, constant(0.6), size=15, rates=[0.1], seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
