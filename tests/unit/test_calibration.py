"""Thresholds from rates and back, against the normal distribution's tail integral."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.calibration import ImpostorCurve
from service.contract import ImpostorScores, ImpostorTail

CURVE = ImpostorCurve(mean=0.02, std=0.08)
SIZES = st.integers(1, 1_000_000)


def tail(similarity, curve=CURVE):
    """Upper tail of the normal distribution by the complementary error function, which keeps small rates exact."""
    return 0.5 * math.erfc((similarity - curve.mean) / (curve.std * math.sqrt(2)))


def fpir_of_tail(similarity, size):
    return -math.expm1(size * math.log1p(-tail(similarity)))


@pytest.mark.parametrize(
    ("fpir", "size", "deviations"),
    # Quantiles of the standard normal distribution: tables for the rate itself.
    [(0.5, 1, 0.0), (0.1, 1, 1.281552), (0.01, 1, 2.326348), (0.001, 1, 3.090232), (1e-6, 1, 4.753424)],
)
def test_one_comparison_is_the_normal_quantile(fpir, size, deviations):
    assert CURVE.threshold(fpir, size) == pytest.approx(0.02 + 0.08 * deviations, abs=1e-6)


def test_false_match_rate_at_two_deviations():
    assert CURVE.false_match_rate(0.18) == pytest.approx(0.0227501, abs=1e-7)


def test_rate_of_a_gallery_is_that_of_at_least_one_of_its_comparisons():
    assert CURVE.fpir(0.18, 3) == pytest.approx(1 - (1 - 0.0227501) ** 3, abs=1e-6)


@given(fpir=st.floats(1e-6, 0.99), size=SIZES)
def test_threshold_and_rate_are_inverse(fpir, size):
    threshold = CURVE.threshold(fpir, size)
    assert threshold < 0.99
    assert CURVE.fpir(threshold, size) == pytest.approx(fpir, rel=1e-3)
    assert fpir_of_tail(threshold, size) == pytest.approx(fpir, rel=1e-3)


@pytest.mark.parametrize("fpir", [1e-6, 1e-3, 1e-2, 0.5])
def test_a_gallery_of_a_million_keeps_its_precision(fpir):
    threshold = CURVE.threshold(fpir, 1_000_000)
    assert fpir_of_tail(threshold, 1_000_000) == pytest.approx(fpir, rel=1e-4)
    assert CURVE.fpir(threshold, 1_000_000) == pytest.approx(fpir, rel=1e-4)


@given(rates=st.tuples(st.floats(1e-9, 0.99), st.floats(1e-9, 0.99)), size=SIZES)
def test_a_stricter_rate_never_lowers_the_threshold(rates, size):
    strict, loose = sorted(rates)
    assert CURVE.threshold(strict, size) >= CURVE.threshold(loose, size)


@given(fpir=st.floats(1e-6, 0.5), sizes=st.tuples(SIZES, SIZES))
def test_a_larger_gallery_never_lowers_the_threshold(fpir, sizes):
    small, large = sorted(sizes)
    assert CURVE.threshold(fpir, large) >= CURVE.threshold(fpir, small)


@given(scores=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), sizes=st.tuples(SIZES, SIZES))
def test_rates_fall_with_the_score_grow_with_the_gallery_and_stay_probabilities(scores, sizes):
    (low, high), (small, large) = sorted(scores), sorted(sizes)
    assert 0.0 <= CURVE.fpir(high, small) <= CURVE.fpir(low, small) <= 1.0
    assert CURVE.fpir(low, small) <= CURVE.fpir(low, large)


@pytest.mark.parametrize("fpir", [1e-15, 1e-30, 1e-300, 5e-324])
def test_a_vanishing_rate_in_a_huge_gallery_is_still_a_threshold(fpir):
    assert CURVE.threshold(1e-9, 1_000_000) < CURVE.threshold(fpir, 1_000_000) <= 0.99


def test_a_wide_curve_is_capped_below_one():
    assert ImpostorCurve(mean=0.3, std=0.3).threshold(1e-6, 1_000_000) == 0.99


def test_an_empty_gallery_is_judged_like_one_comparison_and_has_no_false_positives():
    assert CURVE.threshold(0.01, 0) == CURVE.threshold(0.01, 1)
    assert CURVE.fpir(-1.0, 0) == 0.0


@pytest.mark.parametrize("fpir", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_what_is_no_rate_is_refused(fpir):
    with pytest.raises(ValueError, match="FPIR"):
        CURVE.threshold(fpir, 10)


def tail_of(shape):
    return ImpostorTail(start=0.34, rate=1e-3, shape=shape, scale=0.036, exceedances=1_200, deviation=0.02)


def measured(shape):
    body = ((0.01, 0.5), (0.1, 0.2), (0.14, 0.1), (0.25, 0.01), (0.31, 0.002))
    return ImpostorCurve(mean=0.01, std=0.1, body=body, tail=tail_of(shape))


SHAPES = pytest.mark.parametrize("shape", [-0.05, 0.0, 1e-12, 0.05])


class TestMeasuredCurve:
    @SHAPES
    def test_it_goes_through_the_points_that_were_measured(self, shape):
        curve = measured(shape)
        for similarity, rate in (*curve.body, (0.34, 1e-3)):
            assert curve.false_match_rate(similarity) == pytest.approx(rate, rel=1e-6)
            assert curve.threshold(rate, 1) == pytest.approx(similarity, abs=1e-6)

    @pytest.mark.parametrize(
        ("shape", "rate"),
        # 0.072 is two scales beyond the start: (1 + 2 shape)^(-1 / shape), and exp(-2) for no shape.
        [(-0.05, 0.9**20 * 1e-3), (0.0, math.exp(-2) * 1e-3), (0.05, 1.1**-20 * 1e-3)],
    )
    def test_the_tail_is_generalised_pareto(self, shape, rate):
        assert measured(shape).false_match_rate(0.412) == pytest.approx(rate, rel=1e-9)

    @SHAPES
    @given(fpir=st.floats(1e-6, 0.99), size=SIZES)
    def test_threshold_and_rate_are_inverse(self, shape, fpir, size):
        curve = measured(shape)
        threshold = curve.threshold(fpir, size)
        if threshold < 0.99:
            assert curve.fpir(threshold, size) == pytest.approx(fpir, rel=1e-3)

    @SHAPES
    @given(scores=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
    def test_rates_fall_with_the_score(self, shape, scores):
        low, high = sorted(scores)
        curve = measured(shape)
        assert 0.0 <= curve.false_match_rate(high) <= curve.false_match_rate(low) <= 1.0

    @pytest.mark.parametrize("similarity", [0.01, 0.1, 0.14, 0.25, 0.31, 0.34])
    def test_no_step_at_a_point(self, similarity):
        curve = measured(-0.05)
        below, above = (curve.false_match_rate(similarity + side * 1e-9) for side in (-1, 1))
        assert below == pytest.approx(above, rel=1e-6)

    def test_beyond_the_end_of_a_short_tail_there_is_nobody(self):
        curve = ImpostorCurve(0.01, 0.1, measured(0).body, tail_of(-0.1))
        assert curve.false_match_rate(0.34 + 0.36) == 0.0
        assert curve.fpir(0.75, 1_000_000) == 0.0

    def test_it_is_read_from_a_manifest(self):
        curve = measured(-0.05)
        scores = ImpostorScores(
            mean=0.01, std=0.1, comparisons=1_000_000, source="a test", body=curve.body, tail=curve.tail
        )
        assert ImpostorCurve.of(ImpostorScores.model_validate_json(scores.model_dump_json())) == curve
