"""Which cell answers for which face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_training.detector.geometry import Kind
from model_training.detector.network import cell_grid

# Sides in pixels (geometric mean of width and height) that each level answers for. Neighbours overlap, so a face near
# a boundary is learned by both and falls into no gap; non-maximum suppression keeps the better answer.
LEVEL_SIDES = {8.0: (0.0, 60.0), 16.0: (40.0, 144.0), 32.0: (96.0, float("inf"))}

# A face is answered for by cells this close to its centre: in strides, and as a share of its side.
_RADIUS_STRIDES = 1.5
_RADIUS_SHARE = 0.35


@dataclass(frozen=True)
class Targets:
    """What every cell of a batch should say.

    Attributes:
        weight: (n, cells) float32 in [0, 1], how much the cell answers for a face.
        negative: (n, cells) bool, says no; what is neither is not asked.
        boxes: (n, cells, 4) float32 left, top, right, bottom in pixels; of no meaning where the weight is 0.
        landmarks: (n, cells, 5, 2) float32 pixels, likewise.
    """

    weight: Tensor
    negative: Tensor
    boxes: Tensor
    landmarks: Tensor


def assign(rows: Tensor, answers: Tensor, height: int, width: int) -> Targets:
    """A patient teacher's answers where there are any, else centre sampling with a range of sizes for each level.

    A cell stands for the middle of its square. Where several faces claim it, the smallest has it: a small face in front
    of a large one has fewer cells to live in.

    Args:
        rows: (n, faces, 15) float32, see `geometry.ROW_COLUMNS`.
        answers: (n, m, 16) float32, see `canvases.ANSWER_COLUMNS`; each has its cell to itself.
        height: of the canvas, pixels.
        width: likewise.
    """
    cells, strides = cell_grid(height, width)
    middles = (cells + 0.5) * strides[:, None]
    boxes, kinds = rows[:, :, :4], rows[:, :, 14]
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1).sqrt()
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2

    # (n, cells, faces) from here on.
    lowest = torch.tensor([LEVEL_SIDES[float(s)][0] for s in strides])
    highest = torch.tensor([LEVEL_SIDES[float(s)][1] for s in strides])
    in_range = (sides[:, None] >= lowest[:, None]) & (sides[:, None] < highest[:, None])
    radius = torch.minimum(_RADIUS_SHARE * sides[:, None], _RADIUS_STRIDES * strides[:, None])
    # At half a stride exactly one cell of each level is that near to any point.
    radius = torch.maximum(radius, 0.5 * strides[:, None])
    distance = (middles[None, :, None] - centres[:, None]).abs().amax(dim=-1)
    claims = in_range & (distance <= radius) & (kinds[:, None] == Kind.FACE)

    inside = ((middles[None, :, None] >= boxes[:, None, :, :2]) & (middles[None, :, None] < boxes[:, None, :, 2:])).all(
        -1
    )
    ignored = (inside & (kinds[:, None] == Kind.IGNORE)).any(dim=-1)

    positive = claims.any(dim=-1)
    owner = torch.where(claims, sides[:, None], torch.inf).argmin(dim=-1)
    owned = torch.gather(rows, 1, owner[..., None].expand(-1, -1, rows.shape[2]))
    weight = positive.float()
    canvas, place = answers[..., 15].nonzero(as_tuple=True)
    given = answers[canvas, place]
    cell = given[:, 14].long()
    weight[canvas, cell] = given[:, 15]
    owned[canvas, cell, :14] = given[:, :14]
    return Targets(
        weight=weight,
        negative=(weight == 0) & ~ignored,
        boxes=owned[..., :4],
        landmarks=owned[..., 4:14].unflatten(-1, (5, 2)),
    )
