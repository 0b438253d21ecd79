"""Impostor and mate scores against brute force, and the tail against distributions that are known."""

import numpy as np
import pytest

from model_training.shipping.scores import BODY_RATES, TAIL_RATE, fit_pareto, measure_scores
from service.calibration import ImpostorCurve


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_against_brute_force():
    vectors = unit(np.random.default_rng(0).normal(size=(12, 6)))
    names = list("aabcadbbcdea")
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    different = [float(vectors[i] @ vectors[j]) for i, j in pairs if names[i] != names[j]]
    same = [float(vectors[i] @ vectors[j]) for i, j in pairs if names[i] == names[j]]
    impostors, mates = measure_scores(vectors, names, "letters")
    assert (impostors.comparisons, mates.comparisons) == (len(different), len(same))
    assert (impostors.mean, impostors.std) == pytest.approx((np.mean(different), np.std(different)), abs=1e-5)
    assert (mates.mean, mates.std) == pytest.approx((np.mean(same), np.std(same)), abs=1e-5)
    assert impostors.source == "letters"
    assert (impostors.body, impostors.tail) == ((), None)


def test_pictures_of_one_person_never_count():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    impostors, mates = measure_scores(vectors, ["a", "a", "b", "b"], "four")
    # 0 and 0.6, each twice.
    assert (impostors.comparisons, impostors.mean, impostors.std) == (4, 0.3, 0.3)
    assert (mates.comparisons, mates.mean) == (2, 0.9)


def test_without_a_second_picture_of_anybody_there_are_no_mates():
    vectors = unit(np.random.default_rng(0).normal(size=(4, 3)))
    assert measure_scores(vectors, list("abcd"), "four")[1] is None


@pytest.fixture(scope="module")
def scores():
    """A thousand random directions, and their half a million comparisons, whose distribution is nearly normal."""
    vectors = unit(np.random.default_rng(1).normal(size=(1_000, 64)))
    return vectors, measure_scores(vectors, [str(i) for i in range(1_000)], "random directions")[0]


class TestTail:
    def test_body_and_tail_are_where_the_scores_are(self, scores):
        vectors, measured = scores
        cosines = (vectors @ vectors.T)[np.triu_indices(1_000, 1)]
        for cosine, rate in (*measured.body, (measured.tail.start, measured.tail.rate)):
            assert (cosines >= cosine).mean() == pytest.approx(rate, rel=0.01)
        assert [rate for _, rate in measured.body] == list(BODY_RATES)
        assert measured.tail.exceedances == pytest.approx(len(cosines) * TAIL_RATE, abs=2)
        assert measured.tail.deviation < 0.05

    def test_the_curve_tells_the_share_of_fresh_scores_beyond_the_data(self, scores):
        """The same directions' cosines in tens of millions: (1 + t) / 2 is Beta((d - 1) / 2, (d - 1) / 2)."""
        curve = ImpostorCurve.of(scores[1])
        fresh = 2 * np.random.default_rng(2).beta(31.5, 31.5, 20_000_000) - 1
        for rate, factor in ((0.3, 1.03), (1e-2, 1.05), (1e-3, 1.1), (1e-5, 1.5), (1e-6, 2.0)):
            observed = (fresh >= curve.threshold(rate, 1)).mean()
            assert rate / factor < observed < rate * factor

    @pytest.mark.parametrize(("shape", "scale", "bound"), [(-0.2, 0.04, 0.15), (-0.05, 0.03, 0.6), (0.0, 0.03, 10.0)])
    def test_the_fit_finds_the_parameters_of_its_own_distribution(self, shape, scale, bound):
        uniform = np.random.default_rng(0).random(100_000)
        drawn = scale * (uniform**-shape - 1) / shape if shape else -scale * np.log(uniform)
        assert fit_pareto(drawn, bound=bound) == pytest.approx((shape, scale), abs=0.015)

    def test_a_tail_without_an_end_is_exponential(self):
        drawn = 0.02 * (np.random.default_rng(0).random(5_000) ** -0.2 - 1) / 0.2
        assert fit_pareto(drawn, bound=10.0) == (0.0, pytest.approx(drawn.mean()))

    def test_a_tail_that_would_end_too_soon_ends_at_the_bound(self):
        drawn = np.random.default_rng(0).random(5_000) * 0.1
        shape, scale = fit_pareto(drawn, bound=0.6)
        assert -scale / shape == pytest.approx(0.6)
        assert scale / (1 - shape) == pytest.approx(drawn.mean())
