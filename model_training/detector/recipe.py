"""Everything that decides how a detector turns out, read from TOML and frozen."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class BankRecipe(BaseModel):
    """One bank of canvases.

    Attributes:
        side_px: of the square canvases.
        count: canvases drawn once and reused.
        batch: canvases a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_px: int = Field(ge=32, le=1024, multiple_of=32)
    count: int = Field(ge=1)
    batch: int = Field(ge=1)


class DetectorRecipe(BaseModel):
    """How one detector is trained.

    Attributes:
        width: channels of the pyramid.
        small: canvases of most steps.
        large: canvases of every `large_every`-th step, for faces larger than a small canvas.
        shares: weight of each collection of pictures when canvases are drawn.
        served: share of canvases that show a whole picture as the service shows it to the network.
        held_out: share of the pictures that never trains.
        learning_rate: peak for everything but the 1x1 convolutions, by AdamW.
        mixing_rate: peak for those, by `OrthogonalMomentum`.
        negative_weight: weight of cells that should say no; above 1 it buys fewer false alarms with lower scores.
        landmark_weight: weight of the landmark loss, whose unit is the face's side.
        patient: let the teacher say where the faces are on every canvas, rather than once a picture (see `patience`).
        checkpoint_every: steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,60}$")
    width: int = Field(default=64, ge=8, le=64)
    small: BankRecipe = BankRecipe(side_px=160, count=24_576, batch=64)
    large: BankRecipe = BankRecipe(side_px=320, count=4_096, batch=16)
    large_every: int = Field(default=5, ge=2)
    shares: dict[str, float]
    served: float = Field(default=0.4, ge=0, le=1)
    held_out: float = Field(default=0.03, gt=0, lt=0.5)
    steps: int = Field(default=4_000, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    mixing_rate: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    negative_weight: float = Field(default=1.0, gt=0)
    landmark_weight: float = Field(default=40.0, gt=0)
    patient: bool = False
    checkpoint_every: int = Field(default=100, ge=1)
    bf16: bool = True
    seed: int = 1

    @classmethod
    def from_toml(cls, path: Path) -> DetectorRecipe:
        """Read a recipe.

        Raises:
            ValueError: a key is unknown or a value out of range.
        """
        return cls.model_validate(tomllib.loads(path.read_text()))
