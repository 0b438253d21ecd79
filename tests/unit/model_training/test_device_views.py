"""Views that are drawn where the network trains."""

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from model_training.data import device_views
from model_training.data.device_views import Chance, fresh_views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces():
    """64 copies of a face (3, 112, 112), RGB."""
    face = cv2.resize(astronaut()[0:224, 112:336], (112, 112), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(face.transpose(2, 0, 1).copy()).expand(64, -1, -1, -1)


def test_the_seed_decides_everything(faces):
    first, mixed = fresh_views(faces, Chance(3, CPU))
    again, mixed_again = fresh_views(faces, Chance(3, CPU))
    other, _ = fresh_views(faces, Chance(4, CPU))
    assert torch.equal(first, again) and torch.equal(mixed, mixed_again)
    assert not torch.equal(first, other)


def test_views_are_bytes_and_differ_from_each_other(faces):
    views, mixed = fresh_views(faces, Chance(0, CPU))
    assert views.shape == faces.shape and views.dtype == torch.float32
    assert torch.equal(views, views.round()) and views.min() >= 0 and views.max() <= 255
    assert len({view.numpy().tobytes() for view in views}) > 50
    assert 5 < int(mixed.sum()) < 40


def test_some_are_the_face_itself_or_its_mirror(faces):
    views, mixed = fresh_views(faces, Chance(0, CPU))
    itself = faces[0].float()
    clean = [torch.equal(view, itself) or torch.equal(view, itself.flip(2)) for view in views]
    assert 2 <= sum(clean) <= 20
    assert not any(c and m for c, m in zip(clean, mixed.tolist(), strict=True))


def test_composed_faces_are_two_peoples_in_one_part(faces):
    others = faces.flip(2)  # upside down
    both = torch.cat([faces, others])
    views, mixed = fresh_views(both, Chance(0, CPU), composed=0.65)
    plainly, rarely = fresh_views(both, Chance(0, CPU))
    assert int(mixed.sum()) > int(rarely.sum()) + 40
    # The share changes nothing about the views that it leaves alone.
    assert torch.equal(views[~mixed], plainly[~mixed])


def test_a_part_is_a_part():
    weight = device_views._part(64, Chance(0, CPU))
    assert weight.shape == (64, 1, 112, 112) and weight.min() >= 0 and weight.max() <= 1
    share = weight.mean(dim=(1, 2, 3))
    assert share.min() > 0.02 and share.max() < 0.6
    # Hair and background stay whose they were.
    assert weight[:, :, :8].max() < 0.05 and weight[..., :4].max() < 0.3


def test_colours_are_taken_over(faces):
    dark = faces[:4].float() * 0.4
    lit = device_views._coloured_as(faces[:4].float(), dark)
    inner = (slice(None), slice(None), slice(28, -28), slice(28, -28))
    assert (lit[inner].mean((2, 3)) - faces[:4].float()[inner].mean((2, 3))).abs().max() < 6


@pytest.mark.parametrize("change", [change for _, change in device_views._CHANGES], ids=lambda change: change.__name__)
def test_each_change_changes_and_keeps_a_picture(faces, change):
    before = faces[:8].float()
    after = change(before, Chance(1, CPU))
    assert after.shape == before.shape
    assert after.min() >= -1 and after.max() <= 256
    difference = (after - before).abs().mean(dim=(1, 2, 3))
    assert (difference > 0.2).all()
    assert (difference < 90).all()


def test_jpeg_loses_what_an_encoder_loses(faces):
    """Held against OpenCV's encoder at the same quality: the two errors are alike in size and place."""
    face = faces[:1].float()
    chance = Chance(0, CPU)
    chance.uniform = lambda count, low, high: torch.full((count,), 30.0)  # type: ignore[method-assign]
    ours = device_views._jpeg(face, chance)[0].numpy().transpose(1, 2, 0)
    picture = faces[0].numpy().transpose(1, 2, 0)[..., ::-1]
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    theirs = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
    original = picture[..., ::-1].astype(np.float32)
    our_error, their_error = np.abs(ours - original).mean(), np.abs(theirs - original).mean()
    assert our_error == pytest.approx(their_error, rel=0.25)
    assert np.abs(ours - theirs).mean() < 0.6 * their_error


def test_blur_of_an_even_picture_is_that_picture():
    even = torch.full((4, 3, 112, 112), 77.0)
    assert torch.allclose(device_views._blur(even, Chance(0, CPU)), even, atol=1e-3)
