"""Several teachers that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_training.teachers.networks import Teacher
from service.contract import normalise_embeddings

Combination = Literal["concatenate", "average"]


class EnsembleTeacher:
    """The members' unit embeddings, one after the other, or their mean.

    Concatenated, the cosine of two faces is the weighted mean of the members' cosines, whatever spaces these have. A
    mean is for members of one space, such as checkpoints of one run.

    Args:
        members: each reads the crops in its own way.
        combine: which of the two.
        weights: of the members, which count alike by default.

    Raises:
        ValueError: there are no members or not as many weights, a weight is not positive, or a mean is asked of
            embeddings of different lengths.
    """

    def __init__(self, members: Sequence[Teacher], combine: Combination, weights: Sequence[float] = ()) -> None:
        weights = weights or [1.0] * len(members)
        if not members or len(weights) != len(members):
            raise ValueError(f"{len(members)} members, but {len(weights)} weights")
        if min(weights) <= 0:
            raise ValueError("a member's weight is positive")
        dimensions = [member.dimension for member in members]
        if combine == "average" and len(set(dimensions)) > 1:
            raise ValueError(f"embeddings of {dimensions} values have no mean")
        self._members = members
        self._combine: Combination = combine
        shares = np.array(weights, dtype=np.float32) / np.float32(sum(weights))
        # A cosine is made of products: of two square roots comes the weight.
        self._factors = np.sqrt(shares) if combine == "concatenate" else shares
        self.name = f"{combine} of " + ", ".join(
            f"{weight:g} x {member.name}" for weight, member in zip(weights, members, strict=True)
        )
        self.dimension = sum(dimensions) if combine == "concatenate" else dimensions[0]

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 112, 112, 3) uint8 BGR to (n, dimension) float32."""
        parts = [
            factor * normalise_embeddings(member.embed(crops))
            for factor, member in zip(self._factors, self._members, strict=True)
        ]
        if self._combine == "concatenate":
            return np.concatenate(parts, axis=1)
        return np.asarray(np.sum(parts, axis=0), dtype=np.float32)
