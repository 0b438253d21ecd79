"""Augmented views: right in form, and a function of their seed alone."""

import numpy as np
import pytest

from model_training.data import views
from model_training.data.views import augmented_view, clean_view, mixed_view

RNG = np.random.default_rng(0)
CROP = RNG.integers(0, 256, (112, 112, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (112, 112, 3), dtype=np.uint8)


def assert_is_crop(view):
    assert view.shape == (112, 112, 3)
    assert view.dtype == np.uint8


def test_a_clean_view_is_the_crop():
    np.testing.assert_array_equal(clean_view(CROP), CROP)


@pytest.mark.parametrize("seed", range(25))
def test_a_view_follows_from_its_seed_and_spares_the_crop(seed):
    before = CROP.copy()
    view = augmented_view(CROP, np.random.default_rng(seed))
    assert_is_crop(view)
    assert view.flags.c_contiguous
    np.testing.assert_array_equal(view, augmented_view(CROP, np.random.default_rng(seed)))
    np.testing.assert_array_equal(CROP, before)


def test_other_seeds_give_other_views():
    drawn = {augmented_view(CROP, np.random.default_rng(seed)).tobytes() for seed in range(25)}
    assert len(drawn) > 20


def test_half_of_the_views_are_mirrored_and_otherwise_untouched(monkeypatch):
    monkeypatch.setattr(views, "_CHANGES", ())
    drawn = [augmented_view(CROP, np.random.default_rng(seed)) for seed in range(200)]
    mirrored = sum(np.array_equal(view, CROP[:, ::-1]) for view in drawn)
    straight = sum(np.array_equal(view, CROP) for view in drawn)
    assert mirrored + straight == 200
    # Five deviations of a fair coin thrown 200 times.
    assert abs(mirrored - 100) < 36


@pytest.mark.parametrize("change", [change for _, change in views._CHANGES], ids=lambda change: change.__name__)
def test_each_change_changes_the_picture_and_keeps_its_form(change):
    before = CROP.copy()
    view = change(CROP, np.random.default_rng(4))
    assert_is_crop(view)
    assert not np.array_equal(view, CROP)
    np.testing.assert_array_equal(CROP, before)


def test_grey_has_equal_channels():
    view = views._grey(CROP, np.random.default_rng(0))
    assert (view[..., 0] == view[..., 1]).all()
    assert (view[..., 1] == view[..., 2]).all()


def test_an_occlusion_is_one_colour_and_leaves_the_rest():
    for seed in range(30):
        view = views._occlude(CROP, np.random.default_rng(seed))
        covered = (view != CROP).any(axis=2)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        patch = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (patch == patch[0, 0]).all()
        assert covered.sum() < 0.45 * 112 * 112


class TestMixedView:
    def test_it_is_a_blend_with_both_faces_in_it(self):
        black, white = np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 255, np.uint8)
        shares = [mixed_view(white, black, np.random.default_rng(seed)).mean() / 255 for seed in range(50)]
        assert min(shares) >= 0.29
        assert max(shares) <= 0.71
        assert max(shares) - min(shares) > 0.2

    def test_the_shares_add_up_to_one(self):
        view = mixed_view(CROP, CROP, np.random.default_rng(1))
        assert_is_crop(view)
        assert np.abs(view.astype(int) - CROP).max() <= 1

    def test_it_follows_from_its_seed(self):
        first, second = (mixed_view(CROP, OTHER, np.random.default_rng(8)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
