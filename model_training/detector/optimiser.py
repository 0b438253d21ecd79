"""Momentum with orthogonal steps, for the 1x1 convolutions that hold nearly all of the detector's weights.

Their inputs are rectified and so point mostly one way; plain gradients then turn a matrix in a few directions and leave
the rest behind, and so, more slowly, does a method that rescales entry by entry.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration that brings all singular values near one within five rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix, roughly, whose singular values are all one: (rows, columns) float32 to the same shape.

    Source: Jordan et al., "Muon" (2024); the Newton-Schulz iteration with its published coefficients.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


class OrthogonalMomentum(torch.optim.Optimizer):
    """Nesterov momentum whose step is orthogonalised; for 1x1 convolution kernels (rows, columns, 1, 1).

    Args:
        parameters: such kernels.
        lr: length of a step along each singular direction.
        momentum: share of the last direction that is kept.
        weight_decay: decoupled, relative to `lr`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every kernel that has a gradient; closures are not supported."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "direction" not in state:
                    state["direction"] = torch.zeros_like(parameter)
                direction = state["direction"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = torch.lerp(parameter.grad, direction, group["momentum"]).flatten(1)
                length = group["lr"] * max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(length * orthogonalised(ahead).view_as(parameter))
