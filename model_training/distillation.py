"""Student and objective as one trainable module, so that a wrapper such as DDP has a single forward to wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from model_training.losses import angular_distillation, l2_distillation

OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "angular": angular_distillation,
    "l2": l2_distillation,
}


class Distillation(nn.Module):
    """Runs the student and holds its embedding against the teacher's."""

    def __init__(self, student: nn.Module, objective: Literal["angular", "l2"]) -> None:
        super().__init__()
        self.student = student
        self._objective = OBJECTIVES[objective]

    def forward(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and mean cosine to the teacher.

        Args:
            pixels: (n, 3, 112, 112) float, normalised.
            labels: (n, d) float, the teacher's raw embeddings of the same pixels.
        """
        embedding = self.student(pixels).float()
        cosine = functional.cosine_similarity(embedding.detach(), labels, dim=1).mean()
        return self._objective(labels, embedding), cosine
