"""A face and landmark network of YuNet's size.

Source of the design: Wu, Peng, Yu, "YuNet: a tiny millisecond-level face detector" (Machine Intelligence Research
2023): depthwise separable units, a feature pyramid joined by addition, one anchor per cell and decoupled heads. The
weights start at random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)

# Values per cell in the order of the ONNX outputs.
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}

# Brings pixels near one; the export folds it into the stem. Their mean is left to the norm behind the stem: shifted
# pixels would make the zeros of the convolution's border mean grey in training and black in service.
PIXEL_SCALE = 1 / 64

# A face is rare: at the start every cell says no with this probability, or the first steps drown in negatives.
_PRIOR = 0.01

# A cell's say in its neighbourhood where nothing looks like a face, so that the weights never sum to zero.
LEAST_SAY = 1e-4

LevelOutputs = dict[str, Tensor]


class SeparableUnit(nn.Sequential):
    """A 1x1 convolution that mixes channels, a 3x3 one that looks around in each; norm and ReLU unless it is a head."""

    def __init__(self, channels_in: int, channels_out: int, *, activated: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, 1, bias=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, groups=channels_out, bias=not activated),
        ]
        if activated:
            layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
        super().__init__(*layers)


class FaceNetwork(nn.Module):
    """Pixels in, per-cell predictions out.

    Input: (n, 3, height, width) float, BGR 0..255 as `cv2.FaceDetectorYN` feeds it, sides multiples of 32.

    Output: for each head of `HEADS` the values of all cells of the three levels, stride 8 first and row by row within
    a level: (n, cells, channels) float. `cls` and `obj` are logits; boxes and landmarks are in strides, encoded as
    `decode_boxes` and `decode_landmarks` read them.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            SeparableUnit(16, 16),
        )
        # The network shrinks by max-pooling: strided depthwise convolutions train ten times slower on a CPU.
        self.stage4 = nn.Sequential(SeparableUnit(16, 16), SeparableUnit(16, 32), SeparableUnit(32, 32))
        self.widen = SeparableUnit(32, width)
        self.stage8 = nn.Sequential(SeparableUnit(width, width), SeparableUnit(width, width))
        self.stage16 = nn.Sequential(SeparableUnit(width, width), SeparableUnit(width, width))
        self.stage32 = nn.Sequential(SeparableUnit(width, width), SeparableUnit(width, width))
        self.lateral = nn.ModuleList([SeparableUnit(width, width) for _ in STRIDES])
        self.shared = nn.ModuleList([SeparableUnit(width, width) for _ in STRIDES])
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleList([SeparableUnit(width, channels, activated=False) for _ in STRIDES])
                for name, channels in HEADS.items()
            }
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out" if module.groups == 1 else "fan_in")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        bias = float(torch.logit(torch.tensor(_PRIOR)))
        for name, heads in self.heads.items():
            for head in heads:  # type: ignore[attr-defined]
                nn.init.normal_(head[0].weight, std=0.02)
                nn.init.constant_(head[1].bias, bias if name in ("cls", "obj") else 0.0)

    def forward(self, pixels: Tensor) -> LevelOutputs:
        """See the class."""
        maps = self.level_maps(pixels)
        return {
            name: torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps[name]], dim=1) for name in HEADS
        }

    def level_maps(self, pixels: Tensor) -> dict[str, list[Tensor]]:
        """The heads' maps before flattening: for each head three tensors (n, channels, rows, columns)."""
        features = functional.max_pool2d(self.stem(pixels * PIXEL_SCALE), 2)
        features = functional.max_pool2d(self.widen(self.stage4(features)), 2)
        level8 = self.stage8(features)
        level16 = self.stage16(functional.max_pool2d(level8, 2))
        level32 = self.stage32(functional.max_pool2d(level16, 2))
        top = self.lateral[2](level32)
        middle = self.lateral[1](level16 + functional.interpolate(top, scale_factor=2.0, mode="nearest"))
        bottom = self.lateral[0](level8 + functional.interpolate(middle, scale_factor=2.0, mode="nearest"))
        levels = [unit(level) for unit, level in zip(self.shared, (bottom, middle, top), strict=True)]
        # bfloat16 resolves a landmark to a quarter of a pixel at stride 16; the heads are too small to need it.
        with torch.autocast(pixels.device.type, enabled=False):
            levels = [level.float() for level in levels]
            maps: dict[str, list[Tensor]] = {
                name: [head(level) for head, level in zip(heads, levels, strict=True)]  # type: ignore[arg-type]
                for name, heads in self.heads.items()
            }
            maps["kps"] = [
                agreed_landmarks(landmarks, face, fit)
                for landmarks, face, fit in zip(maps["kps"], maps["obj"], maps["cls"], strict=True)
            ]
            return maps


def neighbour_steps() -> Tensor:
    """How far each neighbour lies off in strides, for x and y in turn: (10, 1, 3, 3) float32."""
    rows, columns = torch.meshgrid(torch.arange(-1.0, 2.0), torch.arange(-1.0, 2.0), indexing="ij")
    return torch.stack([columns, rows] * 5)[:, None]


def agreed_landmarks(landmarks: Tensor, face: Tensor, fit: Tensor) -> Tensor:
    """Each cell's landmarks averaged with what its eight neighbours say of the same points, weighted by their scores.

    Neighbours see a face from the same features one step aside, and their errors are partly their own. The score
    decides who is heard; how it is earned is no business of this loss, so no gradient flows into it.

    Args:
        landmarks: (n, 10, rows, columns) offsets from each cell's corner in strides.
        face: (n, 1, rows, columns) logits of `obj`.
        fit: likewise of `cls`.

    Returns:
        (n, 10, rows, columns), likewise from each cell's own corner.
    """
    say = (face.sigmoid() * fit.sigmoid() + LEAST_SAY).detach().expand_as(landmarks)
    count = landmarks.shape[1]
    everyone = landmarks.new_ones(count, 1, 3, 3)
    steps = neighbour_steps().to(landmarks)
    total = functional.conv2d(say * landmarks, everyone, padding=1, groups=count)
    total = total + functional.conv2d(say, steps, padding=1, groups=count)
    return total / functional.conv2d(say, everyone, padding=1, groups=count)


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def cell_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Column, row and stride of every cell, in the network's order.

    Returns:
        (cells, 2) float32 column and row indices, and (cells,) float32 strides in pixels.
    """
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        cells.append(torch.stack([columns.flatten(), rows.flatten()], dim=1).float())
        strides.append(torch.full((rows.numel(),), float(stride)))
    return torch.cat(cells), torch.cat(strides)


def decode_boxes(encoded: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
    """Encoded boxes to pixels, as `cv2.FaceDetectorYN` does it.

    Args:
        encoded: (..., cells, 4): centre's offset from the cell's corner in strides, logarithm of the size in strides.
        cells: (cells, 2) from `cell_grid`.
        strides: (cells,) likewise.

    Returns:
        (..., cells, 4) left, top, right, bottom.
    """
    centres = (encoded[..., :2] + cells) * strides[:, None]
    # exp(6) strides are wider than any picture; the bound keeps a wild early guess finite.
    halves = encoded[..., 2:4].clamp(-6, 6).exp() * strides[:, None] / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def decode_landmarks(encoded: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
    """Encoded landmarks, (..., cells, 10) offsets from the cell's corner in strides, to (..., cells, 5, 2) pixels."""
    points = encoded.unflatten(-1, (5, 2))
    return (points + cells[:, None]) * strides[:, None, None]


def encode_boxes(boxes: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
    """Inverse of `decode_boxes`."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 / strides[:, None] - cells
    sizes = ((boxes[..., 2:] - boxes[..., :2]) / strides[:, None]).log()
    return torch.cat([centres, sizes], dim=-1)


def encode_landmarks(landmarks: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
    """Inverse of `decode_landmarks`."""
    return (landmarks / strides[:, None, None] - cells[:, None]).flatten(-2)
