"""Identity losses: softmax over cosines to class hyperplanes, with a margin that the own class must be ahead by."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Margin = Literal["arcface", "cosface"]
MARGINS: dict[Margin, float] = {"arcface": 0.5, "cosface": 0.35}
_LEAST_SINE_SQUARED = 1e-9
_LEAST_MOMENTUM = 1e-6


def with_margin(cosines: Tensor, labels: Tensor, kind: Margin, margin: float) -> Tensor:
    """Cosines with each row's own class moved away by a margin.

    Args:
        cosines: (n, classes) float.
        labels: (n,) int64.
        kind: `arcface` adds the margin to the angle (Deng et al., arXiv 1801.07698, equation 3), `cosface` takes it
            from the cosine (Wang et al., arXiv 1801.09414, equation 4).
        margin: radians, or a difference of cosines.
    """
    own = cosines.gather(1, labels[:, None])
    if kind == "cosface":
        moved = own - margin
    else:
        sine = torch.sqrt((1 - own**2).clamp_min(_LEAST_SINE_SQUARED))
        moved = own * math.cos(margin) - sine * math.sin(margin)
        # Past pi the cosine would rise again, and pull the face the wrong way; from there on it falls in a line.
        moved = torch.where(own > -math.cos(margin), moved, own - margin * math.sin(margin))
    return cosines.scatter(1, labels[:, None], moved.to(cosines.dtype))


class _ScaledMargin:
    """Cross-entropy of cosines between embeddings and classes, with a margin; see `MarginSoftmax` for the arguments."""

    def __init__(self, kind: Margin, margin: float | None, scale: float) -> None:
        self._kind: Margin = kind
        self._margin = MARGINS[kind] if margin is None else margin
        self._scale = scale

    def __call__(self, embeddings: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of (n, d) embeddings, (m, d) classes and (n,) int64 labels."""
        # In bfloat16 a cosine is off by up to 0.004, which the scale makes a quarter of a logit.
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = functional.linear(
                functional.normalize(embeddings.float(), dim=1), functional.normalize(classes.float(), dim=1)
            )
            moved = with_margin(cosines, labels, self._kind, self._margin)
            return functional.cross_entropy(self._scale * moved, labels)


class MarginSoftmax(nn.Module):
    """Cross-entropy over scaled cosines to one hyperplane a class.

    Args:
        classes, dimension: of the hyperplanes.
        kind, margin: see `with_margin`; the margin is that of `MARGINS` by default.
        scale: of the cosines.
        inherited: (classes, dimension) float, a teacher's hyperplanes: they stay frozen, so that the student's decision
            boundaries become the teacher's (ShrinkTeaNet, arXiv 1905.10620, section 3.3).

    Raises:
        ValueError: inherited hyperplanes of another shape.
    """

    hyperplanes: Tensor

    def __init__(
        self,
        classes: int,
        dimension: int,
        kind: Margin = "arcface",
        *,
        margin: float | None = None,
        scale: float = 64.0,
        inherited: Tensor | None = None,
    ) -> None:
        super().__init__()
        if inherited is not None and inherited.shape != (classes, dimension):
            raise ValueError(f"{classes} classes of {dimension} values, but hyperplanes {tuple(inherited.shape)}")
        self._loss = _ScaledMargin(kind, margin, scale)
        if inherited is None:
            self.hyperplanes = nn.Parameter(torch.randn(classes, dimension) * 0.01)
        else:
            self.register_buffer("hyperplanes", inherited.detach().float().clone())

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of (n, dimension) raw embeddings and (n,) int64 classes."""
        return self._loss(embeddings, self.hyperplanes, labels)


class AdaptiveCentres(nn.Module):
    """AdaDistill: class centres that the teacher's embeddings move, the more the less the student follows.

    For a face with the teacher's embedding t, the student's s and the class centre c, `c <- a c + (1 - a) t` with
    `a = cos(s, t) cos(c, t)`: early on a class is the teacher's last face of it, later the mean over many, and a face
    far from its centre moves it further. Where a class has several faces in a batch the centre becomes the mean of
    what each asks for.

    Args:
        classes, dimension, kind, margin, scale: see `MarginSoftmax`.

    Source: Boutros et al. (arXiv 2407.01332), section 3.3.
    """

    centres: Tensor

    def __init__(
        self,
        classes: int,
        dimension: int,
        kind: Margin = "arcface",
        *,
        margin: float | None = None,
        scale: float = 64.0,
    ) -> None:
        super().__init__()
        self._loss = _ScaledMargin(kind, margin, scale)
        self.register_buffer("centres", torch.randn(classes, dimension) * 0.01)

    def forward(self, teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of (n, dimension) raw embeddings of both and (n,) int64 classes; moves the centres first."""
        if self.training:
            self._move(
                functional.normalize(teacher.detach().float(), dim=1),
                functional.normalize(student.detach().float(), dim=1),
                labels,
            )
        return self._loss(student, self.centres, labels)

    @torch.no_grad()
    def _move(self, taught: Tensor, learnt: Tensor, labels: Tensor) -> None:
        classes, place = torch.unique(labels, return_inverse=True)
        own = self.centres[labels]
        nearness = functional.cosine_similarity(own, taught, dim=1).clamp(_LEAST_MOMENTUM, 1.0)
        momentum = ((taught * learnt).sum(1) * nearness).clamp(_LEAST_MOMENTUM, 1.0)[:, None]
        asked = momentum * own + (1 - momentum) * taught
        sums = torch.zeros(len(classes), asked.shape[1], device=asked.device).index_add_(0, place, asked)
        self.centres[classes] = sums / torch.bincount(place)[:, None]
