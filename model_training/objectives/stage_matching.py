"""Intermediate stages of a student held against those of its teacher."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from model_training.backbones.stages import Stage
from model_training.objectives.losses import angular_distillation


def paired_stages(student: Sequence[Stage], teacher: Sequence[Stage]) -> list[tuple[int, int]]:
    """Positions of the stages that see the face at the same stride, in the student's order.

    Raises:
        ValueError: no stride is common to both.
    """
    place = {stage.stride: number for number, stage in enumerate(teacher)}
    pairs = [(number, place[stage.stride]) for number, stage in enumerate(student) if stage.stride in place]
    if not pairs:
        raise ValueError("the student and the teacher have no stage of the same stride")
    return pairs


class StageMatching(nn.Module):
    """Angular distillation at each pair of stages, through a projection that is thrown away after training.

    A student's map goes through a 1x1 convolution to the teacher's channels, is pooled to the teacher's grid,
    flattened, and compared by its angle to the teacher's flattened map.

    Args:
        student, teacher: their stages.
        weights: one for each pair.

    Raises:
        ValueError: there are not as many weights as pairs.

    Source: ShrinkTeaNet (Duong et al., arXiv 1905.10620), section 3.4.
    """

    def __init__(self, student: Sequence[Stage], teacher: Sequence[Stage], weights: Sequence[float]) -> None:
        super().__init__()
        self._pairs = paired_stages(student, teacher)
        if len(weights) != len(self._pairs):
            raise ValueError(f"{len(self._pairs)} pairs of stages, but {len(weights)} weights")
        self._weights = tuple(weights)
        self.projections = nn.ModuleList(
            nn.Conv2d(student[own].channels, teacher[other].channels, 1, bias=False) for own, other in self._pairs
        )

    def forward(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
        """Weighted sum of the losses of all pairs.

        Args:
            teacher, student: maps of every declared stage, (n, channels, side, side) float; no gradient flows into the
                teacher's.
        """
        losses = []
        for weight, projection, (own, other) in zip(self._weights, self.projections, self._pairs, strict=True):
            taught = teacher[other]
            learnt = functional.adaptive_avg_pool2d(projection(student[own]), taught.shape[2:])
            losses.append(weight * angular_distillation(taught.flatten(1), learnt.flatten(1)))
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total
