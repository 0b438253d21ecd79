"""Recipes: everything that decides how a student turns out, read from TOML and frozen."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_training.backbones.mobilefacenet import MobileFaceNetShape


class DistillationRecipe(BaseModel):
    """How one student is distilled.

    Attributes:
        backbone: of the catalogue, for a student that starts from nothing; by default a MobileFaceNet of `blocks`.
        blocks: residual blocks of the student in each stage; one that starts from its teacher keeps as many of them.
        stem_channels, channels, expansions, transition_expansions: widths of a MobileFaceNet, see `MobileFaceNetShape`;
            None is as published. One that starts from a wider network keeps its most telling channels.
        objective: how its embedding is held against the teacher's. `logits` compares the distributions over the
            persons that the bank knows, `adadistill` learns persons by adaptive centres, `none` compares nothing.
        stage_weights: of the angular loss at each stage that student and teacher share.
        identity: margin softmax over the bank's persons beside the objective.
        identity_weight: of that.
        hyperplanes: `inherited`: the teacher's mean direction of each person, frozen; `learned`: the student's own.
        anneal_until: fraction of the run by which the PReLU slopes have gone linearly to zero; 0 where a student starts
            without them; None keeps PReLU.
        eight_bits: whether the student trains with the rounding of 8-bit integers, for a last part of its training.
        batch: views a step, over all processes.
        composed: share of the fresh views in which eyes, nose, mouth or all of them are another face's, for more
            people than there are pictures of.
        accumulate: parts that a process takes its share of a batch in, for less memory.
        averaging: decay of a running mean of the weights, which then is what is exported; None for the weights.
        held_out: fraction of the faces, of those without a name if there are such, that never trains and only reports.
        checkpoint_every: steps between checkpoints.
        compile: what runs through torch.compile; on a CPU the teacher gains by it, a student without PReLU loses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,60}$")
    backbone: str | None = None
    blocks: tuple[int, int, int] = (2, 3, 1)
    stem_channels: int | None = Field(default=None, ge=1)
    channels: tuple[int, int, int] | None = None
    expansions: tuple[int, int, int] | None = None
    transition_expansions: tuple[int, int, int] | None = None
    objective: Literal["angular", "l2", "logits", "adadistill", "none"] = "angular"
    stage_weights: tuple[float, ...] = ()
    identity: Literal["none", "arcface", "cosface"] = "none"
    identity_weight: float = Field(default=0.1, gt=0)
    hyperplanes: Literal["inherited", "learned"] = "inherited"
    epochs: int = Field(default=3, ge=1, le=100_000)
    batch: int = Field(default=64, ge=2, le=4096)
    composed: float = Field(default=0.0, ge=0, le=0.65)
    accumulate: int = Field(default=1, ge=1)
    averaging: float | None = Field(default=None, gt=0, lt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    anneal_until: float | None = Field(default=None, ge=0, le=1)
    eight_bits: bool = False
    held_out: float = Field(default=0.02, gt=0, lt=0.5)
    checkpoint_every: int = Field(default=200, ge=1)
    bf16: bool = True
    compile: bool | Literal["teacher"] = True
    seed: int = 1

    @model_validator(mode="after")
    def _teaches_something(self) -> DistillationRecipe:
        if self.objective == "none" and self.identity == "none" and not self.stage_weights:
            raise ValueError("neither an objective nor an identity loss nor a stage: there is nothing to learn")
        if self.eight_bits and self.anneal_until != 0:
            raise ValueError("8-bit integers need a student that starts with ReLU: anneal_until = 0")
        return self

    def mobilefacenet(self, dimension: int) -> MobileFaceNetShape:
        """The shape of a student that is a MobileFaceNet with embeddings of so many values."""
        widths = {
            name: getattr(self, name)
            for name in ("stem_channels", "channels", "expansions", "transition_expansions")
            if getattr(self, name) is not None
        }
        return MobileFaceNetShape(blocks=self.blocks, dimension=dimension, **widths)

    @property
    def needs_people(self) -> bool:
        """Whether the bank has to say whom its views show."""
        return self.identity != "none" or self.objective in ("logits", "adadistill")

    @classmethod
    def from_toml(cls, path: Path) -> DistillationRecipe:
        """Read a recipe.

        Raises:
            ValueError: a key is unknown or a value out of range.
        """
        return cls.model_validate(tomllib.loads(path.read_text()))


class TeacherRecipe(BaseModel):
    """How one teacher is trained on people that are known.

    Attributes:
        backbone: of the catalogue.
        dimension: of its embeddings.
        identity: the margin softmax.
        margin: of that; None for the usual one.
        scale: of its cosines.
        sampled_share: share of the people that a batch is compared with.
        batch: faces a step, over all processes.
        augmented: share of the faces that are shifted, blurred, recoloured or covered; the rest are at most mirrored.
        held_out: share of the people who never train; how well the network tells them apart is reported.
        checkpoint_every: steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,60}$")
    backbone: str = "iresnet50"
    dimension: int = Field(default=512, ge=2, le=4096)
    identity: Literal["arcface", "cosface"] = "arcface"
    margin: float | None = Field(default=None, gt=0, lt=1.5)
    scale: float = Field(default=64.0, gt=0)
    sampled_share: float = Field(default=1.0, gt=0, le=1)
    epochs: int = Field(default=20, ge=1, le=1000)
    batch: int = Field(default=128, ge=2, le=65_536)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=1000, ge=0)
    augmented: float = Field(default=0.2, ge=0, le=1)
    held_out: float = Field(default=0.01, ge=0, lt=0.5)
    checkpoint_every: int = Field(default=1000, ge=1)
    bf16: bool = True
    compile: bool = True
    seed: int = 1

    @classmethod
    def from_toml(cls, path: Path) -> TeacherRecipe:
        """Read a recipe.

        Raises:
            ValueError: a key is unknown or a value out of range.
        """
        return cls.model_validate(tomllib.loads(path.read_text()))
