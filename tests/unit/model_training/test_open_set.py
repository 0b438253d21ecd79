"""Open-set identification against counts that can be made by hand."""

import numpy as np
import pytest

from model_training.bench.open_set import halves
from model_training.protocols.embedding import Embedded
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


def test_events_of_one_pair_of_doubles_say_little_however_many_there_are():
    """Two of forty people are doubles: every event is theirs, and who draws people again has them or not."""
    rows = axes(*range(40))
    rows[1] = rows[0]
    (figure,) = open_set(rows, [str(i) for i in range(40)], constant(0.9), size=20, rates=[0.1], trials=2_000)
    # One is enrolled and the other not in half of the galleries; there are twenty strangers in each.
    assert figure.observed == pytest.approx(0.5 / 20, abs=0.003)
    assert figure.interval.low == 0.0
    assert figure.interval.high > 3 * figure.observed


def test_lookalikes_are_the_pairs_that_a_rate_lets_through():
    """40 * 39 / 2 pairs of people, and 40 * 30 with fillers; a rate of 0.1 in 25 faces is one comparison in 250."""
    rows, names = axes(*range(40)), [str(i) for i in range(40)]
    (alone,) = open_set(rows, names, constant(0.9), size=25, rates=[0.1])
    assert alone.lookalikes == pytest.approx(780 / 250)
    (filled,) = open_set(rows, names, constant(0.9), size=25, rates=[0.1], distractors=axes(*range(30)), enrolled=10)
    assert filled.lookalikes == pytest.approx((780 + 1_200) / 250)


def test_nobody_is_judged_by_thresholds_that_they_took_part_in():
    rows = np.random.default_rng(0).standard_normal((350, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names, filler = tuple(f"p{number // 3:03d}" for number in range(300)), rows[300:]
    both = list(halves(Embedded(rows[:300], names, ()), filler))
    assert sorted({name for half in both for name in half.names}) == sorted(set(names))
    for half, other in zip(both, both[::-1], strict=True):
        assert (len(half.vectors), len(set(half.names)), len(half.filler)) == (150, 50, 100)
        assert not set(half.names) & set(other.names)
        judged = {row.tobytes() for row in half.vectors}
        assert not judged & {row.tobytes() for row in half.filler}
        # Fifty of the other half, one picture each, and the fillers.
        assert half.scores.comparisons == 100 * 99 / 2
        np.testing.assert_array_equal(half.filler[50:], filler)
