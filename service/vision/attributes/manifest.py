"""The manifest of an attribute network: how faces are cut out for it, what it reads, and what its answers mean.

It stands beside the ONNX file as `<model>.json`. docs/attributes.md explains it and has examples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.contract import check_file, parse_manifest
from service.domain import ATTRIBUTE_NAME, age_range
from service.ports import BoxView

# Times of these stages stand beside those of attributes in an answer.
_TAKEN: Final = frozenset({"cache", "decode", "detect", "align", "embed", "search", "store", "serialise"})
# Attributes that others have a fixed form for, and the kinds of readings that fit it.
_KINDS: Final = {"age": {"value", "classes"}, "gender": {"classes"}, "liveness": {"score"}, "mask": {"score"}}

PerChannel = float | tuple[float, float, float]


class _Part(BaseModel):
    # Infinite or missing numbers would make every answer one.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AlignedCrop(_Part):
    """The aligned crop that the embedding network reads, 112 x 112, brought to the network's size."""

    kind: Literal["aligned"]
    side_px: int = Field(ge=8, le=384)


class BoxCrop(_Part):
    """The surroundings of the face's box, upright with the picture; members as in `BoxView`."""

    kind: Literal["box"]
    side_px: int = Field(ge=8, le=384)
    scale: float = Field(ge=0.5, le=8)
    shape: Literal["square", "box"] = "square"
    outside: Literal["black", "inside"] = "black"

    @property
    def view(self) -> BoxView:
        """What the analyser is asked for."""
        return BoxView(self.scale, self.side_px, self.shape, self.outside)


class Pixels(_Part):
    """From bytes to the network's floats: `(value - mean) * scale`, one for all channels or each in `colour_order`."""

    colour_order: Literal["RGB", "BGR"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    mean: PerChannel = 0.0
    scale: PerChannel = 1.0


class _Reading(_Part):
    name: str = Field(pattern=ATTRIBUTE_NAME.pattern)
    output: str | None = Field(default=None, description="Name of the output tensor; the first one unless given.")
    first: int = Field(default=0, ge=0, description="Where in a face's row of the output the reading begins.")

    @model_validator(mode="after")
    def _fits_its_name(self) -> Self:
        if self.name in _TAKEN:
            raise ValueError(f"{self.name} is the name of a stage of the service")
        kind = getattr(self, "kind", None)
        if kind not in _KINDS.get(self.name, {kind}):
            raise ValueError(f"{self.name} is told as {' or '.join(sorted(_KINDS[self.name]))}, not as {kind}")
        return self


class ClassesReading(_Reading):
    """One of several classes, from as many numbers in a row. Ages as classes are labelled `25-32`, `31` or `60+`."""

    kind: Literal["classes"]
    labels: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(min_length=2, max_length=256)
    numbers: Literal["logits", "probabilities"]

    @property
    def width(self) -> int:
        """Numbers that it is read from."""
        return len(self.labels)

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels differ from one another")
        if self.name == "age" and any(age_range(label) is None for label in self.labels):
            raise ValueError("classes of ages are labelled 25-32, 31 or 60+")
        return self


class ValueReading(_Reading):
    """A number: `answer * factor + offset`."""

    kind: Literal["value"]
    factor: float = 1.0
    offset: float = 0.0
    unit: str | None = Field(default=None, min_length=1, max_length=32)

    @property
    def width(self) -> int:
        """Numbers that it is read from."""
        return 1


class ScoreReading(_Reading):
    """Whether something is so: the probability of one of `classes` numbers in a row, and from when on it counts.

    A single logit becomes a probability by the logistic function, several by softmax.
    """

    kind: Literal["score"]
    classes: int = Field(default=1, ge=1, le=256)
    index: int = Field(default=0, ge=0)
    numbers: Literal["logits", "probabilities"]
    threshold: float = Field(default=0.5, gt=0, lt=1)

    @property
    def width(self) -> int:
        """Numbers that it is read from."""
        return self.classes

    @model_validator(mode="after")
    def _index_is_a_class(self) -> Self:
        if self.index >= self.classes:
            raise ValueError(f"index {self.index} is none of {self.classes} classes")
        return self


Crop = Annotated[AlignedCrop | BoxCrop, Field(discriminator="kind")]
Reading = Annotated[ClassesReading | ValueReading | ScoreReading, Field(discriminator="kind")]


class AttributeManifest(_Part):
    """What an attribute network is.

    Attributes:
        format: of this manifest.
        licence: of the network, for whoever asks; not checked.
    """

    format: Literal[1]
    name: str = Field(min_length=1, max_length=100)
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.onnx$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str | None = Field(default=None, max_length=1_000)
    crop: Crop
    pixels: Pixels
    readings: tuple[Reading, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [reading.name for reading in self.readings]
        if len(set(names)) < len(names):
            raise ValueError("a network tells each attribute once")
        return self


def read_attribute_manifest(model_path: Path) -> AttributeManifest:
    """Read `<model>.json` beside a network and check the file against it.

    Raises:
        ContractError: the manifest is missing or wrong, or the file is not the one it describes.
    """
    manifest = parse_manifest(model_path, AttributeManifest)
    check_file(model_path, manifest.file, manifest.sha256)
    return manifest
