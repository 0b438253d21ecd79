"""The margin softmax whose classes are shared among processes and sampled for each batch."""

import pytest
import torch

from model_training.objectives.margins import MarginSoftmax
from model_training.objectives.partial_softmax import PartialSoftmax


def whole(partial, kind="arcface", scale=64.0):
    """A softmax over all classes with the same hyperplanes."""
    classes, dimension = partial.hyperplanes.shape
    loss = MarginSoftmax(classes, dimension, kind, scale=scale)
    loss.hyperplanes.data.copy_(partial.hyperplanes.data)
    return loss


def batch(count=6, dimension=4, classes=10):
    generator = torch.Generator().manual_seed(3)
    faces = torch.randn(count, dimension, generator=generator).requires_grad_()
    return faces, torch.randint(0, classes, (count,), generator=generator)


class TestOneProcess:
    @pytest.mark.parametrize("kind", ["arcface", "cosface"])
    def test_with_all_classes_it_is_the_margin_softmax(self, kind):
        partial = PartialSoftmax(10, 4, kind, scale=8.0)
        other = whole(partial, kind, 8.0)
        (faces, labels), (same, _) = batch(), batch()
        got, wanted = partial(faces, labels), other(same, labels)
        got.backward()
        wanted.backward()
        assert got.item() == pytest.approx(wanted.item(), rel=1e-5)
        torch.testing.assert_close(faces.grad, same.grad)
        torch.testing.assert_close(partial.hyperplanes.grad.to_dense(), other.hyperplanes.grad)

    def test_half_precision_around_it_changes_nothing(self):
        partial = PartialSoftmax(10, 4)
        faces, labels = batch()
        with torch.autocast("cpu", torch.bfloat16):
            inside = partial(faces, labels)
        assert inside.item() == partial(faces, labels).item()


class TestSampling:
    def test_a_batch_meets_its_own_classes_and_as_many_others_as_wanted(self):
        torch.manual_seed(0)
        loss = PartialSoftmax(100, 4, sampled_share=0.1)
        labels = torch.tensor([7, 93, 7, 50])
        seen = [loss._chosen(labels) for _ in range(20)]
        for chosen in seen:
            assert len(chosen) == len(set(chosen.tolist())) == 10
            assert {7, 50, 93} <= set(chosen.tolist())
        assert len({tuple(chosen.tolist()) for chosen in seen}) > 1

    def test_a_batch_of_more_classes_than_wanted_keeps_them_all(self):
        loss = PartialSoftmax(100, 4, sampled_share=0.01)
        assert loss._chosen(torch.tensor([3, 1, 2])).tolist() == [1, 2, 3]

    def test_the_loss_is_that_over_the_classes_chosen(self):
        loss = PartialSoftmax(50, 4, "cosface", scale=4.0, sampled_share=0.2)
        faces, labels = batch(classes=50)
        torch.manual_seed(1)
        chosen = loss._chosen(labels)
        torch.manual_seed(1)
        got = loss(faces, labels).item()
        over = MarginSoftmax(len(chosen), 4, "cosface", scale=4.0, inherited=loss.hyperplanes[chosen])
        assert got == pytest.approx(over(faces, torch.searchsorted(chosen, labels)).item(), rel=1e-5)

    def test_only_chosen_hyperplanes_get_a_gradient_and_move(self):
        torch.manual_seed(0)
        loss = PartialSoftmax(100, 4, sampled_share=0.05)
        before = loss.hyperplanes.detach().clone()
        optimizer = torch.optim.SparseAdam(loss.parameters(), lr=0.1)
        loss(torch.randn(3, 4), torch.tensor([1, 2, 3])).backward()
        assert loss.hyperplanes.grad.is_sparse
        optimizer.step()
        moved = (loss.hyperplanes != before).any(dim=1)
        assert int(moved.sum()) == 5
        assert moved[1:4].all()

    @pytest.mark.parametrize("share", [0.0, 1.5])
    def test_a_share_that_is_none_is_refused(self, share):
        with pytest.raises(ValueError, match="share"):
            PartialSoftmax(10, 2, sampled_share=share)


class TestSharing:
    def test_processes_hold_every_class_once_and_start_alike(self, monkeypatch):
        monkeypatch.setattr("model_training.objectives.partial_softmax._DRAWN", 4)
        alone = PartialSoftmax(11, 3, seed=5)
        shares = [PartialSoftmax(11, 3, rank=rank, peers=3, seed=5) for rank in range(3)]
        assert [len(share.hyperplanes) for share in shares] == [3, 4, 4]
        assert torch.equal(torch.cat([share.hyperplanes.data for share in shares]), alone.hyperplanes.data)
        assert not torch.equal(PartialSoftmax(11, 3, seed=6).hyperplanes, alone.hyperplanes)

    def test_fewer_classes_than_processes_are_refused(self):
        with pytest.raises(ValueError, match="2 classes cannot be shared among 3"):
            PartialSoftmax(2, 3, peers=3)
