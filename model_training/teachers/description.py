"""Teachers from a file that says which networks they are made of and how these want their pixels.

combine = "concatenate"

[[member]]
onnx = "glint360k_r100.onnx"
mean = 127.5
scale = 0.0078125

[[member]]
backbone = "iresnet50"
weights = "runs/teacher/backbone.pt"
share = 0.5

[[member]]
weights = "teacher.npz"
layers = "teacher_layers.json"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_training.backbones.catalogue import make_backbone
from model_training.backbones.stages import Backbone
from model_training.teachers.ensemble import Combination, EnsembleTeacher
from model_training.teachers.layer_list import load_layer_list
from model_training.teachers.networks import OnnxTeacher, PixelFormat, Teacher, TorchTeacher
from model_training.teachers.onnx_backbone import OnnxBackbone


class DescriptionError(ValueError):
    """A file does not describe a teacher, or its networks are not what it says."""


class Member(BaseModel):
    """One network of a teacher: an ONNX file; the state dict of a backbone; or a MobileFaceNet's arrays and layers.

    Attributes:
        onnx: file; with `mean`, `scale` and `colour_order` of the pixels that it wants.
        stages: names of the ONNX network's values that a student's stages are held against; see `OnnxBackbone`.
        backbone: of the catalogue; it reads pixels as the contract says.
        weights: of the backbone (a state dict), or the arrays of the layer list (.npz).
        layers: list of layers.
        dimension: of the backbone's embeddings, where it has not the usual one.
        compile: run the backbone as a compiled graph: minutes at the start, and then faster.
        share: the member's weight in an ensemble.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    onnx: Path | None = None
    mean: float = 127.5
    scale: float = Field(default=0.0078125, gt=0)
    colour_order: Literal["RGB", "BGR"] = "RGB"
    stages: tuple[str, ...] = ()
    backbone: str | None = None
    weights: Path | None = None
    layers: Path | None = None
    dimension: int | None = Field(default=None, ge=2, le=4096)
    compile: bool = True
    share: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Member:
        kinds = [self.onnx is not None, self.backbone is not None, self.layers is not None]
        if sum(kinds) != 1 or (self.onnx is None) != (self.weights is not None):
            raise ValueError("a member has `onnx`, or `weights` with `backbone` or `layers`")
        return self

    @property
    def pixels(self) -> PixelFormat:
        """How the ONNX network wants them."""
        return PixelFormat(self.mean, self.scale, self.colour_order)


class TeacherDescription(BaseModel):
    """A teacher.

    Attributes:
        combine: how several members answer as one; see `EnsembleTeacher`.
        member: one or more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: Combination = "concatenate"
    member: tuple[Member, ...] = Field(min_length=1, max_length=16)

    @classmethod
    def read(cls, path: Path) -> TeacherDescription:
        """Read a description. Files that it names are sought beside it.

        Raises:
            DescriptionError: it is none.
        """
        try:
            described = cls.model_validate(tomllib.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise DescriptionError(f"{path} describes no teacher: {error}") from error
        beside = [
            member.model_copy(
                update={
                    key: path.parent / value
                    for key in ("onnx", "weights", "layers")
                    if (value := getattr(member, key)) is not None
                }
            )
            for member in described.member
        ]
        return described.model_copy(update={"member": tuple(beside)})

    def teacher(self) -> Teacher:
        """The teacher that labels.

        Raises:
            DescriptionError: a network is not what the description says.
        """
        members = [_labelling(member) for member in self.member]
        if len(members) == 1:
            return members[0]
        try:
            return EnsembleTeacher(members, self.combine, [member.share for member in self.member])
        except ValueError as error:
            raise DescriptionError(str(error)) from error

    def backbone(self) -> Backbone:
        """The network whose stages a student's are held against.

        Raises:
            DescriptionError: there are several members, whose stages are not one network's.
        """
        if len(self.member) > 1:
            raise DescriptionError("the stages of an ensemble are not those of one network")
        (member,) = self.member
        if member.onnx is not None:
            return OnnxBackbone(member.onnx, member.pixels, member.stages)
        return _torch_network(member)


def _labelling(member: Member) -> Teacher:
    if member.onnx is not None:
        return OnnxTeacher(member.onnx, member.pixels)
    assert member.weights is not None
    return TorchTeacher(_torch_network(member), member.weights.stem, compiled=member.compile)


def _torch_network(member: Member) -> Backbone:
    assert member.weights is not None
    if member.layers is not None:
        return load_layer_list(member.weights, member.layers)
    assert member.backbone is not None
    try:
        network = make_backbone(member.backbone, member.dimension)
        network.load_state_dict(torch.load(member.weights, weights_only=True, map_location="cpu"))
    except (ValueError, RuntimeError) as error:
        raise DescriptionError(f"{member.weights.name} is no {member.backbone}: {error}") from error
    return network.eval()
