"""Error rates against brute force and hand-worked cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.protocols.metrics import (
    TooFewImpostors,
    best_threshold,
    fold_accuracy,
    require_support,
    tar_at_far,
    threshold_at,
)


def accuracy_at(threshold, scores, same):
    return float(((scores >= threshold) == same).mean())


def best_accuracy(scores, same):
    """Over every threshold that makes a difference."""
    return max(accuracy_at(t, scores, same) for t in [*scores, scores.max() + 1])


@st.composite
def pairs(draw, size=None):
    """Scores with many ties, and labels of both kinds."""
    size = draw(st.integers(2, 24)) if size is None else size
    scores = draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size))
    labels = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(scores) / 4.0, np.array(labels)


class TestBestThreshold:
    @given(pairs())
    def test_no_other_threshold_judges_more_pairs_rightly(self, drawn):
        scores, same = drawn
        assert accuracy_at(best_threshold(scores, same), scores, same) == best_accuracy(scores, same)

    def test_it_lies_in_the_middle_of_the_widest_gap(self):
        scores = np.array([0.1, 0.2, 0.3, 0.7, 0.9])
        assert best_threshold(scores, np.array([False, False, False, True, True])) == pytest.approx(0.5)
        # Two equally good places, from 0.1 to 0.2 and from 0.3 to 0.7.
        assert best_threshold(scores, np.array([False, True, False, True, True])) == pytest.approx(0.5)

    def test_tied_scores_are_not_told_apart(self):
        scores, same = np.array([0.5, 0.5, 0.5]), np.array([False, True, True])
        assert best_threshold(scores, same) < 0.5


class TestFoldAccuracy:
    @given(pairs(size=12), st.sampled_from([2, 3, 4, 6]))
    def test_each_fold_is_judged_at_the_best_threshold_of_the_others(self, drawn, folds):
        scores, same = drawn
        result = fold_accuracy(scores, same, folds)
        size, accuracies = 12 // folds, []
        for fold, threshold in enumerate(result.thresholds):
            inside = range(fold * size, (fold + 1) * size)
            rest = np.array([i for i in range(12) if i not in inside])
            assert accuracy_at(threshold, scores[rest], same[rest]) == best_accuracy(scores[rest], same[rest])
            accuracies.append(sum((scores[i] >= threshold) == same[i] for i in inside) / size)
        assert result.mean == pytest.approx(np.mean(accuracies))
        deviation = np.sqrt(sum((a - np.mean(accuracies)) ** 2 for a in accuracies) / (folds - 1))
        assert result.std == pytest.approx(deviation)

    def test_a_fold_unlike_the_others_is_not_judged_by_itself(self):
        scores = np.array([0.1, 0.9, 0.2, 0.8, 0.95, 0.99])
        same = np.array([False, True, False, True, False, True])
        result = fold_accuracy(scores, same, 3)
        # At the middle of 0.2 and 0.8 both pairs of the third fold count as the same person.
        assert result.thresholds[2] == pytest.approx(0.5)
        assert accuracy_at(result.thresholds[2], scores[4:], same[4:]) == 0.5

    @pytest.mark.parametrize(("count", "folds"), [(10, 3), (10, 1), (10, 0)])
    def test_pairs_that_do_not_divide_are_refused(self, count, folds):
        with pytest.raises(ValueError, match="folds"):
            fold_accuracy(np.zeros(count), np.zeros(count, dtype=bool), folds)

    def test_labels_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match="folds"):
            fold_accuracy(np.zeros(10), np.zeros(9, dtype=bool), 2)


class TestThresholdAt:
    IMPOSTORS = np.array([0.1, 0.5, 0.3, 0.2, 0.4, 0.0, -0.1, -0.2, -0.3, -0.4])

    @pytest.mark.parametrize(("rate", "refused"), [(0.05, 0.5), (0.1, 0.4), (0.19, 0.4), (0.2, 0.3), (0.5, 0.0)])
    def test_it_is_just_above_the_first_impostor_to_refuse(self, rate, refused):
        threshold = threshold_at(self.IMPOSTORS, rate)
        assert threshold > refused
        assert threshold == pytest.approx(refused, abs=1e-12)
        assert (threshold <= self.IMPOSTORS).mean() <= rate

    def test_tied_impostors_are_refused_together(self):
        # Two of eight may pass, but the second and third are tied.
        threshold = threshold_at(np.array([0.5, 0.4, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1]), 0.25)
        assert 0.4 < threshold < 0.5

    def test_scores_of_single_precision_are_not_accepted_by_rounding(self):
        impostors = np.array([0.3, 0.1], dtype=np.float32)
        assert not (impostors >= threshold_at(impostors, 0.01)).any()

    def test_every_impostor_may_pass_at_a_rate_of_one(self):
        assert threshold_at(self.IMPOSTORS, 1.0) == -1.0

    def test_a_count_that_floating_point_puts_just_under_a_whole_number_counts_as_that_number(self):
        assert 100 * 0.29 < 29
        impostors = np.linspace(-0.5, 0.5, 100)
        assert (impostors >= threshold_at(impostors, 0.29)).sum() == 29


class TestTarAtFar:
    IMPOSTORS = np.linspace(0.0, 0.49, 50)
    MATES = np.array([0.35, 0.385, 0.395, 0.9])

    def test_mates_above_the_threshold_are_accepted(self):
        scores = np.concatenate([self.MATES, self.IMPOSTORS])
        # Ten of fifty may pass: 0.40 to 0.49. The first to refuse scores 0.39.
        tar, threshold = tar_at_far(scores, np.arange(54) < 4, 0.2)
        assert tar == 0.5
        assert threshold == pytest.approx(0.39)

    def test_a_rate_of_less_than_ten_impostors_is_refused(self):
        scores = np.concatenate([self.MATES, self.IMPOSTORS])
        with pytest.raises(
            TooFewImpostors, match=r"50 impostor comparisons cannot support a FAR of 0\.19: it needs 53"
        ):
            tar_at_far(scores, np.arange(54) < 4, 0.19)


@pytest.mark.parametrize(("count", "rate"), [(10, 1.0), (1_000, 0.01), (10_000, 1e-3), (10_000_000, 1e-6)])
def test_ten_expected_events_support_a_rate(count, rate):
    require_support(count, rate)
    with pytest.raises(TooFewImpostors, match=f"needs {count:,}"):
        require_support(count - 1, rate)
