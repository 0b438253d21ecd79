"""Fields of requests, beside their pictures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from service.domain import (
    ATTRIBUTE_NAME,
    GALLERY_NAME,
    MAX_METADATA_DEPTH,
    PERSON_ID,
    UNCHANGED,
    GallerySettings,
    PersonChange,
    QualityLevel,
    check_metadata_depth,
)
from service.identification.probes import MAX_AMONG, MAX_TOP_K

_MAX_METADATA_BYTES = 16_384


def _spelt(value: Any, info: ValidationInfo) -> Any:
    """Multipart carries what is not text as JSON."""
    if not isinstance(value, str) or not (info.context or {}).get("as_text"):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise ValueError("this is not valid JSON") from None


def _bounded(metadata: dict[str, Any]) -> dict[str, Any]:
    check_metadata_depth(metadata)
    if len(orjson.dumps(metadata)) > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata may take at most {_MAX_METADATA_BYTES} bytes as JSON")
    return metadata


def _ids(value: Any, info: ValidationInfo) -> Any:
    """Multipart carries ids as a JSON array or as text with commas."""
    as_text = isinstance(value, str) and (info.context or {}).get("as_text")
    if as_text and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return _spelt(value, info)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


Metadata = Annotated[dict[str, Any], AfterValidator(_bounded), BeforeValidator(_spelt)]
PersonIds = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=MAX_AMONG), BeforeValidator(_ids)]
Attributes = Annotated[
    list[Annotated[str, Field(pattern=ATTRIBUTE_NAME.pattern)]],
    Field(
        max_length=16,
        description="What else to tell of each face, as a JSON array or with commas in multipart: `mask`, and what the "
        "service has networks for, such as `age`, `gender` or `liveness`; `/health/ready` says which.",
        examples=[["mask"]],
    ),
    BeforeValidator(_ids),
]
Name = Annotated[str, Field(max_length=200)]
Gallery = Annotated[str, Field(pattern=GALLERY_NAME.pattern)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
# In JSON 5.0 is an integer.
_WHOLE = BeforeValidator(lambda value: int(value) if _is_whole(value) else value)
MaxFaces = Annotated[int, Field(ge=1, le=1_000), _WHOLE]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), _WHOLE]
Rate = Annotated[float, Field(gt=0, lt=1)]
Person = Annotated[str, Field(pattern=PERSON_ID.pattern)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnrolFields(_Fields):
    """Fields of an enrolment beside its pictures."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["image"]}, {"required": ["images"]}]})

    person_id: Person | None = Field(default=None, description="Yours, or left out for a fresh one.", examples=["ada"])
    name: Name | None = Field(default=None, examples=["Ada Lovelace"])
    metadata: Metadata = Field(
        default_factory=dict,
        description=f"Any JSON object of at most {MAX_METADATA_DEPTH} levels; as text in multipart.",
    )
    gallery: Gallery | None = Field(default=None, description="Created by its first enrolment.")
    on_existing: Literal["reject", "extend"] = Field(
        default="reject", description="What to do when the person exists: refuse with 409, or add the faces."
    )
    on_conflict: Literal["report", "reject"] = Field(
        default="report", description="What to do when somebody else looks like the person: say so, or refuse with 409."
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When the faces are to be erased.", examples=["2031-01-01T00:00:00Z"]
    )
    attributes: Attributes = Field(default_factory=list)


class BatchEnrolFields(_Fields):
    """Persons to enrol: each item has the fields of `/enroll`, and `gallery` is for those that name none."""

    gallery: Gallery | None = None
    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=256), BeforeValidator(_spelt)]


class IdentifyFields(_Fields):
    """Fields of an identification beside its picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "required": ["fpir", "threshold"],
                "properties": {"fpir": {"type": "number"}, "threshold": {"type": "number"}},
            }
        }
    )

    gallery: Gallery | None = None
    top_k: TopK = Field(default=5, description="Candidates listed for each face.")
    fpir: Rate | None = Field(default=None, description="Target false-positive identification rate.")
    threshold: Cosine | None = Field(default=None, description="A cosine to decide by instead of an FPIR.")
    max_faces: MaxFaces | None = Field(default=None, description="Answer for the largest so many faces only.")
    exact: bool = Field(default=False, description="Compare with every face, however large the gallery.")
    person_ids: PersonIds | None = Field(
        default=None, description="The only persons whom it may be; as a JSON array or with commas in multipart."
    )
    attributes: Attributes = Field(default_factory=list)


class VerifyFields(_Fields):
    """Fields of a verification beside its pictures."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["reference"]},
                {"required": ["person_id"], "properties": {"person_id": {"type": "string"}}},
            ]
        }
    )

    person_id: Person | None = Field(default=None, description="Compare with this person, instead of a second picture.")
    gallery: Gallery | None = None
    fmr: float = Field(default=1e-3, gt=0, lt=1, description="Target false-match rate.")
    attributes: Attributes = Field(default_factory=list)


class DetectFields(_Fields):
    """Fields of a detection beside its picture."""

    max_faces: MaxFaces | None = None
    attributes: Attributes = Field(default_factory=list)


class GallerySettingsFields(_Fields):
    """How a gallery differs from the service's defaults; null follows the default."""

    target_fpir: Rate | None = Field(default=None, description="Default of /identify in this gallery.")
    quality_gate: QualityLevel | None = Field(default=None, description="What a face must have to be enrolled.")
    keep_crops: bool = Field(
        default=False, description="Keep aligned crops, so that a change of model can embed them anew."
    )

    def settings(self) -> GallerySettings:
        """For the domain."""
        return GallerySettings(self.target_fpir, self.quality_gate, self.keep_crops)


class CreateGalleryFields(GallerySettingsFields):
    """A gallery to begin."""

    name: Gallery = Field(examples=["staff"])


class ChangeGalleryFields(_Fields):
    """Settings to change; what is left out stays."""

    target_fpir: Rate | None = None
    quality_gate: QualityLevel | None = None
    keep_crops: bool = False


class AddPersonFields(_Fields):
    """A person without faces."""

    person_id: Person | None = Field(default=None, description="Yours, or left out for a fresh one.", examples=["ada"])
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class ChangePersonFields(_Fields):
    """What to change of a person; what is left out stays, null takes the name away."""

    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict, description="Replaces all of it.")

    def change(self) -> PersonChange:
        """For the domain."""
        given = self.model_fields_set
        return PersonChange(
            name=self.name if "name" in given else UNCHANGED,
            metadata=self.metadata if "metadata" in given else UNCHANGED,
        )
