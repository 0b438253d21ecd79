"""The change of model, asked for and told of."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.gallery.active import Place
from service.migration import Status

LISTED = 100


class MigrateFields(BaseModel):
    """A change of model to begin."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        min_length=1,
        max_length=4096,
        pattern=r"^(/[^\x00]*|[A-Za-z0-9._-]+\.onnx)$",
        description="Absolute path of the ONNX file on the service's machine, with its manifest beside it, or the name "
        "of a network that comes along.",
        examples=["/models/new.onnx"],
    )


class PlaceOut(BaseModel):
    """A model, and the space of its embeddings."""

    model: str
    space_id: str

    @classmethod
    def of(cls, place: Place) -> PlaceOut:
        """From the gallery."""
        return cls(model=str(place.embedder), space_id=place.space_id)


class AgreementOut(BaseModel):
    """Answers of both models to mirror images of `compared` enrolled faces.

    `same` is the share for which both name the same person first; `right_before` and `right_after` the shares for which
    the old and the new model name whose face it is.
    """

    compared: int
    same: float
    right_before: float
    right_after: float


class AgainOut(BaseModel):
    """A person with faces that cannot be carried over; without `carried` ones they must be enrolled again."""

    gallery: str
    person_id: str
    faces: int
    carried: int


class MigrationOut(BaseModel):
    """How far the change of model is.

    `other` is the model that is prepared or, once switched, the one that can be gone back to. `again` lists up to 100
    of the `again_persons` who have faces whose crops were not kept.
    """

    state: Literal["idle", "embedding", "comparing", "ready", "switched", "failed"]
    active: PlaceOut
    other: PlaceOut | None
    faces_done: int
    faces_total: int
    faces_per_s: float
    agreement: AgreementOut | None
    again: list[AgainOut]
    again_persons: int
    started_at: datetime | None
    problem: str | None

    @classmethod
    def of(cls, status: Status) -> MigrationOut:
        """From the migration."""
        found = status.agreement
        agreement = None
        if found is not None and found.compared:
            agreement = AgreementOut(
                compared=found.compared,
                same=round(found.same / found.compared, 4),
                right_before=round(found.right_before / found.compared, 4),
                right_after=round(found.right_after / found.compared, 4),
            )
        return cls(
            state=status.state,
            active=PlaceOut.of(status.active),
            other=PlaceOut.of(status.other) if status.other is not None else None,
            faces_done=status.faces_done,
            faces_total=status.faces_total,
            faces_per_s=round(status.faces_per_s, 1),
            agreement=agreement,
            again=[
                AgainOut(gallery=each.gallery, person_id=each.person_id, faces=each.faces, carried=each.carried)
                for each in status.again[:LISTED]
            ],
            again_persons=len(status.again) + status.again_more,
            started_at=status.started_at,
            problem=status.problem,
        )
