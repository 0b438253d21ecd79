"""Fields of requests, beside their pictures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from service.domain import UNCHANGED, GallerySettings, PersonChange, QualityLevel
from service.identification.probes import MAX_AMONG

_MAX_METADATA_BYTES = 16_384


def _metadata(value: Any) -> Any:
    """Multipart carries metadata as JSON text; either way it must be an object of bounded size."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise ValueError("metadata is not valid JSON") from None
    if isinstance(value, dict) and len(orjson.dumps(value)) > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata may take at most {_MAX_METADATA_BYTES} bytes as JSON")
    return value


Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]


def _array(value: Any) -> Any:
    """Multipart carries a list as a JSON array."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise ValueError("this is not a valid JSON array") from None


def _ids(value: Any) -> Any:
    """Multipart carries a list of ids as a JSON array or as text with commas."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _array(value)
    return [part.strip() for part in value.split(",") if part.strip()]


PersonIds = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=MAX_AMONG), BeforeValidator(_ids)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnrolFields(_Fields):
    """Fields of an enrolment beside its pictures."""

    person_id: str | None = Field(default=None, description="Yours, or left out for a fresh one.", examples=["ada"])
    name: str | None = Field(default=None, max_length=200, examples=["Ada Lovelace"])
    metadata: Metadata = Field(default_factory=dict, description="Any JSON object; as text in multipart.")
    gallery: str | None = Field(default=None, description="Created by its first enrolment.")
    on_existing: Literal["reject", "extend"] = Field(
        default="reject", description="What to do when the person exists: refuse with 409, or add the faces."
    )
    on_conflict: Literal["report", "reject"] = Field(
        default="report", description="What to do when somebody else looks like the person: say so, or refuse with 409."
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When the faces are to be erased.", examples=["2031-01-01T00:00:00Z"]
    )


class BatchEnrolFields(_Fields):
    """Persons to enrol: each item has the fields of `/enroll`, and `gallery` is for those that name none."""

    gallery: str | None = None
    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=256), BeforeValidator(_array)]


class IdentifyFields(_Fields):
    """Fields of an identification beside its picture."""

    gallery: str | None = None
    top_k: int = Field(default=5, ge=1, le=100, description="Candidates listed for each face.")
    fpir: float | None = Field(default=None, gt=0, lt=1, description="Target false-positive identification rate.")
    threshold: float | None = Field(default=None, ge=-1, le=1, description="A cosine to decide by instead of an FPIR.")
    max_faces: int | None = Field(default=None, ge=1, description="Answer for the largest so many faces only.")
    exact: bool = Field(default=False, description="Compare with every face, however large the gallery.")
    person_ids: PersonIds | None = Field(
        default=None, description="The only persons whom it may be; as a JSON array or with commas in multipart."
    )


class VerifyFields(_Fields):
    """Fields of a verification beside its pictures."""

    person_id: str | None = Field(default=None, description="Compare with this person, instead of a second picture.")
    gallery: str | None = None
    fmr: float = Field(default=1e-3, gt=0, lt=1, description="Target false-match rate.")


class DetectFields(_Fields):
    """Fields of a detection beside its picture."""

    max_faces: int | None = Field(default=None, ge=1)


class GallerySettingsFields(_Fields):
    """How a gallery differs from the service's defaults; null follows the default."""

    target_fpir: float | None = Field(default=None, gt=0, lt=1, description="Default of /identify in this gallery.")
    quality_gate: QualityLevel | None = Field(default=None, description="What a face must have to be enrolled.")
    keep_crops: bool = Field(
        default=False, description="Keep aligned crops, so that a change of model can embed them anew."
    )

    def settings(self) -> GallerySettings:
        """For the domain."""
        return GallerySettings(self.target_fpir, self.quality_gate, self.keep_crops)


class CreateGalleryFields(GallerySettingsFields):
    """A gallery to begin."""

    name: str = Field(examples=["staff"])


class ChangeGalleryFields(_Fields):
    """Settings to change; what is left out stays."""

    target_fpir: float | None = Field(default=None, gt=0, lt=1)
    quality_gate: QualityLevel | None = None
    keep_crops: bool = False


class AddPersonFields(_Fields):
    """A person without faces."""

    person_id: str | None = Field(default=None, description="Yours, or left out for a fresh one.", examples=["ada"])
    name: str | None = Field(default=None, max_length=200)
    metadata: Metadata = Field(default_factory=dict)


class ChangePersonFields(_Fields):
    """What to change of a person; what is left out stays, null takes the name away."""

    name: str | None = Field(default=None, max_length=200)
    metadata: Metadata = Field(default_factory=dict, description="Replaces all of it.")

    def change(self) -> PersonChange:
        """For the domain."""
        given = self.model_fields_set
        return PersonChange(
            name=self.name if "name" in given else UNCHANGED,
            metadata=self.metadata if "metadata" in given else UNCHANGED,
        )
