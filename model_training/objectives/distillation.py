"""Student and objective as one trainable module, so that a wrapper such as DDP has a single forward to wrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_training.backbones.stages import Backbone
from model_training.objectives.losses import angular_distillation, l2_distillation, logit_distillation
from model_training.objectives.margins import AdaptiveCentres, MarginSoftmax
from model_training.objectives.stage_matching import StageMatching

Objective = Literal["angular", "l2", "logits", "adadistill", "none"]


@dataclass(frozen=True)
class Lesson:
    """What the teacher and the data say of a batch.

    Attributes:
        embeddings: (n, d) float, the teacher's, raw.
        classes: (n,) int64, negative where nobody is known.
        maps: the teacher's at each of its stages; empty where none are compared.
    """

    embeddings: Tensor
    classes: Tensor
    maps: Sequence[Tensor] = ()


class Distillation(nn.Module):
    """Runs the student and holds it against the teacher.

        L = w_id L_id + L_objective(embedding) + sum_i w_i L_d(stage i)

    Args:
        student: the network.
        objective: for the embedding; see `DistillationRecipe`.
        hyperplanes: (people, d) float, the teacher's, for `logits`.
        centres: for `adadistill`.
        stages: compares feature maps where given.
        identity: where given, applied to the faces whose person is known.
        identity_weight: of that.
        compiled: run the student as a compiled graph. The losses stay outside of it: how many faces have a known person
            differs from batch to batch, and each number would compile anew.

    Raises:
        ValueError: an objective lacks what it needs.
    """

    def __init__(
        self,
        student: Backbone,
        objective: Objective,
        *,
        hyperplanes: Tensor | None = None,
        centres: AdaptiveCentres | None = None,
        stages: StageMatching | None = None,
        identity: MarginSoftmax | None = None,
        identity_weight: float = 1.0,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if objective == "logits" and hyperplanes is None:
            raise ValueError("comparing logits needs the teacher's hyperplanes")
        if objective == "adadistill" and centres is None:
            raise ValueError("AdaDistill needs centres")
        self.student = student
        self.stages = stages
        self.identity = identity
        self.centres = centres
        self.register_buffer("hyperplanes", hyperplanes)
        self._objective = objective
        self._identity_weight = identity_weight
        run = student.forward if stages is None else student.forward_features
        self._run: Callable[[Tensor], Any] = torch.compile(run, dynamic=False) if compiled else run

    def forward(self, pixels: Tensor, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Loss and mean cosine to the teacher.

        Args:
            pixels: (n, 3, 112, 112) float, normalised.
            lesson: of the same pixels.
        """
        embedding, maps = (self._run(pixels), []) if self.stages is None else self._run(pixels)
        embedding = embedding.float()
        cosine = functional.cosine_similarity(embedding.detach(), lesson.embeddings, dim=1).mean()
        loss = self._compared(embedding, lesson)
        if self.stages is not None:
            loss = loss + self.stages(lesson.maps, maps)
        if self.identity is not None:
            known = lesson.classes >= 0
            if bool(known.any()):
                loss = loss + self._identity_weight * self.identity(embedding[known], lesson.classes[known])
        return loss, cosine

    def _compared(self, embedding: Tensor, lesson: Lesson) -> Tensor:
        if self._objective == "angular":
            return angular_distillation(lesson.embeddings, embedding)
        if self._objective == "l2":
            return l2_distillation(lesson.embeddings, embedding)
        if self._objective == "logits":
            assert isinstance(self.hyperplanes, Tensor)
            return logit_distillation(lesson.embeddings, embedding, self.hyperplanes)
        known = lesson.classes >= 0
        if self._objective == "none" or not bool(known.any()):
            return embedding.new_zeros(())
        assert self.centres is not None
        loss: Tensor = self.centres(lesson.embeddings[known], embedding[known], lesson.classes[known])
        return loss
