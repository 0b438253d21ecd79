"""Margin softmax over millions of classes: each process holds its share of them, and a batch meets a sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from model_training.objectives.margins import MARGINS, Margin, with_margin

# Hyperplanes that are drawn at a time: all of millions would not fit in the memory of a process that keeps a share.
_DRAWN = 65_536


class PartialSoftmax(nn.Module):
    """Cross-entropy over scaled cosines to one hyperplane a class, with a margin, of which a batch meets a sample.

    The classes are shared evenly among the processes. Embeddings go round to all of them, each works out the logits of
    its own classes, and the sums of the softmax are added up: no process ever sees all classes. The module is not
    wrapped in DDP; the network that made the embeddings is.

    The gradient of the hyperplanes is sparse, so that one that no batch met costs neither time nor memory: it wants an
    optimiser such as `torch.optim.SparseAdam`.

    Args:
        classes, dimension: of the hyperplanes, over all processes.
        kind, margin, scale: see `MarginSoftmax`.
        sampled_share: share of each process's classes that a batch meets, its own always among them; 1 for all.
        rank, peers: of this process, which has joined `torch.distributed` where there are several.
        seed: of the hyperplanes' start, which does not depend on the number of processes.

    Raises:
        ValueError: a share outside (0, 1], or fewer classes than processes.

    Source: An et al., Partial FC (arXiv 2010.05222), sections 3.1 to 3.3.
    """

    def __init__(
        self,
        classes: int,
        dimension: int,
        kind: Margin = "arcface",
        *,
        margin: float | None = None,
        scale: float = 64.0,
        sampled_share: float = 1.0,
        rank: int = 0,
        peers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 < sampled_share <= 1.0:
            raise ValueError(f"a share of classes lies in (0, 1], not {sampled_share}")
        if classes < peers:
            raise ValueError(f"{classes} classes cannot be shared among {peers} processes")
        self._kind: Margin = kind
        self._margin = MARGINS[kind] if margin is None else margin
        self._scale = scale
        self._rank, self._peers = rank, peers
        self._first, end = (classes * place // peers for place in (rank, rank + 1))
        self._sampled = max(1, round(sampled_share * (end - self._first)))
        self.hyperplanes = nn.Parameter(_drawn(classes, self._first, end, dimension, seed))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the batches of all processes, the same in each.

        Args:
            embeddings: (n, dimension) raw, of this process; every process has as many.
            labels: (n,) int64 classes.
        """
        # In half precision a cosine is off by up to 0.004, which the scale makes a quarter of a logit.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if self._peers > 1:
                embeddings = _Gathered.apply(embeddings, self._rank, self._peers)
                labels = _gathered(labels, self._peers)
            local = labels - self._first
            own = torch.nonzero((local >= 0) & (local < len(self.hyperplanes))).squeeze(1)
            chosen = self._chosen(local[own])
            met = functional.embedding(chosen, self.hyperplanes, sparse=True)
            cosines = functional.linear(functional.normalize(embeddings, dim=1), functional.normalize(met, dim=1))
            place = torch.full_like(labels, -1)
            place[own] = torch.searchsorted(chosen, local[own])
            if len(own):
                moved = with_margin(cosines[own], place[own], self._kind, self._margin)
                cosines = cosines.index_copy(0, own, moved)
            loss: Tensor = _SharedCrossEntropy.apply(self._scale * cosines, place, self._peers)
        return loss

    def _chosen(self, own: Tensor) -> Tensor:
        """Classes of this process that the batch meets, ascending: its own, and others drawn at random."""
        if self._sampled >= len(self.hyperplanes):
            return torch.arange(len(self.hyperplanes), device=own.device)
        own = torch.unique(own)
        # Own classes rank above every draw.
        rank = torch.rand(len(self.hyperplanes), device=own.device)
        rank[own] = 2.0
        return rank.topk(max(self._sampled, len(own))).indices.sort().values


class _Gathered(torch.autograd.Function):
    """The rows of all processes. Each has a part of every row's gradient, as it has a part of the classes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, peers: int) -> Tensor:
        ctx.rank, ctx.peers, ctx.count = rank, peers, len(rows)
        return _gathered(rows, peers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = gradients[0].contiguous()
        distributed.all_reduce(whole)
        own = whole[ctx.rank * ctx.count : (ctx.rank + 1) * ctx.count]
        # The loss is a mean over all rows already, and DDP will divide by the number of processes once more.
        return own * ctx.peers, None, None


class _SharedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of rows whose logits are spread over the processes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, place: Tensor, peers: int) -> Tensor:
        """(n, m) logits of this process's classes; (n,) column of a row's own class, -1 where it is elsewhere."""
        own = torch.nonzero(place >= 0).squeeze(1)
        highest = logits.max(dim=1).values
        if peers > 1:
            distributed.all_reduce(highest, distributed.ReduceOp.MAX)
        shares = (logits - highest[:, None]).exp_()
        # Sum of all exponentials, and the row's own logit.
        told = torch.stack([shares.sum(dim=1), torch.zeros_like(highest)])
        told[1, own] = logits[own, place[own]]
        if peers > 1:
            distributed.all_reduce(told)
        total, logit = told
        ctx.save_for_backward(shares.div_(total[:, None]), own, place)
        return (total.log() + highest - logit).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        shares, own, place = ctx.saved_tensors
        wanted = shares.clone()
        wanted[own, place[own]] -= 1
        return wanted * (gradients[0] / len(shares)), None, None


def _gathered(rows: Tensor, peers: int) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(peers)]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def _drawn(classes: int, first: int, end: int, dimension: int, seed: int) -> Tensor:
    """Rows `first` to `end` of a random matrix of all classes that is always the same."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.empty(end - first, dimension)
    for start in range(0, end, _DRAWN):
        block = torch.randn(min(_DRAWN, classes - start), dimension, generator=generator) * 0.01
        low, high = max(first, start), min(end, start + len(block))
        if low < high:
            kept[low - first : high - first] = block[low - start : high - start]
    return kept
