"""What a student is asked to match. Inputs are raw (unnormalised) embeddings; only their directions matter."""

from __future__ import annotations

import torch
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


def logit_distillation(
    teacher: Tensor, student: Tensor, hyperplanes: Tensor, *, scale: float = 64.0, temperature: float = 4.0
) -> Tensor:
    """Divergence of the student's class distribution from the teacher's, both over the teacher's classes.

    Args:
        teacher, student: (n, d) float; no gradient flows into the former.
        hyperplanes: (classes, d) float, whose directions are the teacher's classes.
        scale: of the cosines that are the logits, as in the teacher's training.
        temperature: softens both distributions; the result is multiplied by its square.

    Source: Hinton et al. (arXiv 1503.02531), section 2.
    """
    classes = functional.normalize(hyperplanes.detach().float(), dim=1)
    sharpness = scale / temperature
    # The scale would turn the rounding of a cosine to bfloat16 into a difference of logits.
    with torch.autocast(student.device.type, enabled=False):
        expected, got = (
            functional.log_softmax(sharpness * functional.linear(functional.normalize(rows, dim=1), classes), dim=1)
            for rows in (teacher.detach().float(), student.float())
        )
        return functional.kl_div(got, expected, reduction="batchmean", log_target=True) * temperature**2
