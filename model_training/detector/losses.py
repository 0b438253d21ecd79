"""What the detector minimises."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_training.detector.network import FaceNetwork, cell_grid, decode_boxes, decode_landmarks

# Distances below this share of the face's side count quadratically.
_LANDMARK_KNEE = 0.004


def aligned_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes pairwise in order: (..., 4) and (..., 4) left, top, right, bottom to (...,) in [0, 1]."""
    common = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    shared = common.prod(dim=-1)
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def eiou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU, plus how far centre, width and height are off relative to the smallest frame around both boxes.

    Args:
        predicted: (..., 4) left, top, right, bottom.
        target: likewise.

    Returns:
        (...,) loss, 0 where the boxes agree.

    Source: Zhang et al., "Focal and efficient IOU loss for accurate bounding box regression" (2022), without the focus.
    """
    frame = torch.maximum(predicted[..., 2:], target[..., 2:]) - torch.minimum(predicted[..., :2], target[..., :2])
    frame = frame.clamp(min=1e-3)
    centres = (predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    sizes = (predicted[..., 2:] - predicted[..., :2]) - (target[..., 2:] - target[..., :2])
    apart = (centres**2).sum(dim=-1) / (frame**2).sum(dim=-1) + ((sizes / frame) ** 2).sum(dim=-1)
    return 1 - aligned_iou(predicted, target) + apart


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Binary cross-entropy towards a quality in [0, 1], weighted by the squared distance still to go.

    Args:
        logits: any shape.
        quality: the same shape, 0 for background.

    Source: Li et al., "Generalized focal loss" (NeurIPS 2020), beta = 2.
    """
    distance = (logits.sigmoid() - quality).detach() ** 2
    return distance * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")


class DetectorObjective(nn.Module):
    """A network and its loss as one module, so that both are compiled and autocast together.

    `obj` learns how much a cell answers for a face, `cls` how well its box fits besides (IoU). The score is their
    geometric mean, so of several answers for one face suppression keeps the best placed.

    Args:
        network: trained in place.
        side_px: of the canvases.
        landmark_weight: weight of the landmark error relative to the face's side.
        negative_weight: weight of cells that should say no, relative to those that answer for a face.
    """

    def __init__(
        self, network: FaceNetwork, side_px: int, landmark_weight: float, negative_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.network = network
        self._landmark_weight = landmark_weight
        self._negative_weight = negative_weight
        cells, strides = cell_grid(side_px, side_px)
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, pixels: Tensor, weight: Tensor, negative: Tensor, boxes: Tensor, landmarks: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            pixels: (n, 3, side, side) float, BGR 0..255.
            weight: (n, cells) float32; this and the rest as in `assignment.Targets`.
            negative: (n, cells) bool.
            boxes: (n, cells, 4) pixels.
            landmarks: (n, cells, 5, 2) pixels.

        Returns:
            (4,) float32: score, box and landmark terms as they are weighted into the total, and the mean landmark error
            as a share of the face's side.
        """
        outputs = {name: value.float() for name, value in self.network(pixels).items()}
        positive = weight > 0
        count = weight.sum().clamp(min=1.0)
        predicted = decode_boxes(outputs["bbox"], self.cells, self.strides)
        # Empty cells get a harmless box: an infinite or undefined loss times a weight of zero is still undefined.
        wanted = torch.where(positive[..., None], boxes, predicted.detach())
        fit = aligned_iou(predicted, wanted).detach() * weight
        asked = positive.float() + self._negative_weight * negative.float()
        scores = quality_focal_loss(outputs["cls"][..., 0], fit) + quality_focal_loss(outputs["obj"][..., 0], weight)
        box = (eiou_loss(predicted, wanted) * weight).sum() / count
        sides = (wanted[..., 2:] - wanted[..., :2]).prod(dim=-1).clamp(min=1.0).sqrt()
        points = decode_landmarks(outputs["kps"], self.cells, self.strides)
        apart = (points - landmarks) / sides[..., None, None] * weight[..., None, None]
        # The distance itself, rounded off at zero: what an evaluation averages, and blind to the axes.
        distance = ((apart**2).sum(dim=-1) + _LANDMARK_KNEE**2).sqrt() - _LANDMARK_KNEE
        landmark = distance.sum() / (5 * count)
        error = apart.detach().norm(dim=-1).sum() / (5 * count)
        return torch.stack([2.0 * (scores * asked).sum() / count, 2.0 * box, self._landmark_weight * landmark, error])
