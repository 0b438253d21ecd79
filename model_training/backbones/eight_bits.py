"""What numbers become in 8-bit integers, in a form that a network can train through.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(CVPR 2018, arXiv 1712.05877), sections 2 and 3; gradients pass straight through the rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ACTIVATION_STEPS = 255
_WEIGHT_STEPS = 127


class RoundedRange(nn.Module):
    """Activations as unsigned 8-bit integers hold them: one scale a tensor, zero among the values.

    Args:
        low, high: the range; it is widened to hold zero, and what lies beyond it is cut off.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        if not high > low:
            raise ValueError(f"nothing lies between {low} and {high}")
        self.scale = (high - low) / _ACTIVATION_STEPS
        self.zero_point = round(-low / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape; the same back."""
        least, most = -self.zero_point * self.scale, (_ACTIVATION_STEPS - self.zero_point) * self.scale
        # bfloat16 has too few digits to say which step is nearest.
        inside = x.float().clamp(least, most)
        rounded = torch.round(inside / self.scale) * self.scale
        return (inside + (rounded - inside).detach()).to(x.dtype)


def rounded_weight(weight: Tensor) -> Tensor:
    """Weights as signed 8-bit integers hold them: (outputs, ...) with one scale an output channel, none cut off."""
    scale = weight.detach().abs().flatten(1).amax(dim=1).clamp_min(1e-12) / _WEIGHT_STEPS
    scale = scale.view(-1, *(1 for _ in weight.shape[1:]))
    rounded = torch.round(weight / scale) * scale
    return weight + (rounded - weight).detach()
