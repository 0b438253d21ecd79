"""Everything that decides how a mask classifier turns out, read from TOML and frozen."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class MaskRecipe(BaseModel):
    """How one mask classifier is trained.

    Attributes:
        channels: of the network's stages.
        batch: crops a step, half of them masked.
        drawn: share of the masked crops that are bare faces with a mask drawn on.
        covered: share of the bare crops with something else before the face.
        smoothing: what an answer is asked to leave to the other side, since some pictures are filed wrongly.
        learning_rate: peak, by AdamW; it warms up and falls as a cosine.
        held_out: share of the pictures that never trains.
        alike: cosine of embeddings from which on two pictures are held out together or not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,60}$")
    channels: tuple[int, int, int, int, int] = (8, 16, 24, 32, 48)
    steps: int = Field(default=3_000, ge=1)
    batch: int = Field(default=128, ge=2, le=4096, multiple_of=2)
    drawn: float = Field(default=0.4, ge=0, le=1)
    covered: float = Field(default=0.3, ge=0, le=1)
    smoothing: float = Field(default=0.02, ge=0, lt=0.5)
    learning_rate: float = Field(default=4e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    held_out: float = Field(default=0.15, gt=0, lt=0.5)
    alike: float = Field(default=0.8, gt=0, le=1)
    seed: int = 1

    @classmethod
    def from_toml(cls, path: Path) -> MaskRecipe:
        """Read a recipe.

        Raises:
            ValueError: a key is unknown or a value out of range.
        """
        return cls.model_validate(tomllib.loads(path.read_text()))
