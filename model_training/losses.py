"""What a student is asked to match. Inputs are raw (unnormalised) embeddings; only their directions matter."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def angular_distillation(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean of `(1 - cos(teacher, student))^2` over the batch.

    Args:
        teacher: (n, d) float; no gradient flows into it.
        student: (n, d) float.

    Returns:
        Scalar, 0 when all directions agree and 4 when all are opposite.

    Source: ShrinkTeaNet (Duong et al., arXiv 1905.10620), equation 6.
    """
    cosine = functional.cosine_similarity(teacher.detach().float(), student.float(), dim=1)
    return ((1.0 - cosine) ** 2).mean()


def l2_distillation(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean of `||teacher - student||^2` over the batch: the baseline for angular distillation.

    Args:
        teacher: (n, d) float; no gradient flows into it.
        student: (n, d) float.
    """
    return ((teacher.detach().float() - student.float()) ** 2).sum(dim=1).mean()
