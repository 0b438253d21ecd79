"""Galleries and who is enrolled in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.errors import DomainError
from service.domain.faces import FaceQuality

QualityLevel = Literal["off", "standard", "strict"]


@dataclass(frozen=True, slots=True)
class GallerySettings:
    """How one gallery differs from the service's defaults; None follows the default.

    Attributes:
        target_fpir: false-positive identification rate that thresholds follow from.
        quality_gate: what a face must have to be enrolled.
        keep_crops: keep the aligned crop of every face enrolled, so that a change of model can embed it anew.
    """

    target_fpir: float | None = None
    quality_gate: QualityLevel | None = None
    keep_crops: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody enrolled in a gallery.

    Attributes:
        face_ids: in the order of enrolment.
        revision: of the last change to this person; grows, and is the same for nobody else's change but those stored
            with it.
    """

    gallery: str
    person_id: str
    name: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    face_ids: tuple[str, ...] = ()
    revision: int = 0


class Unchanged(Enum):
    """Says of a value that it stays as it is, where None would be a value."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class PersonChange:
    """New values for a person; what is not given stays."""

    name: str | Unchanged | None = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True)
class PersonFilter:
    """Which persons a list shows.

    Attributes:
        name_contains: a part of the name, in any case.
        metadata: values that top-level keys must have: text as it is, anything else as JSON spells it.
    """

    name_contains: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def admits(self, person: Person) -> bool:
        """Whether somebody fits."""
        if self.name_contains is not None and self.name_contains.casefold() not in (person.name or "").casefold():
            return False
        return all(
            key in person.metadata and _spelt(person.metadata[key]) == value for key, value in self.metadata.items()
        )


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class PersonPage:
    """Some persons in order of id. `next_after` is where to go on, None at the end; a page may be empty before that."""

    persons: tuple[Person, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Face:
    """An enrolled face, without its embedding.

    Attributes:
        quality: None where the embedding came without a picture.
        expires_at: from then on it matches nobody, and is erased.
        crop_digest: hash of the aligned crop; empty where there was none.
        crop_kept: whether the crop itself is stored.
    """

    face_id: str
    quality: FaceQuality | None
    created_at: datetime
    expires_at: datetime | None = None
    crop_digest: str = ""
    crop_kept: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A face about to be stored.

    Attributes:
        embedding: (d,) float32 of unit length.
        quality: None where the embedding came without a picture.
        crop_digest: hash of the aligned crop, under which its embedding may be cached; empty when there was no crop.
        expires_at: from then on it matches nobody, and is erased; None is never.
        crop: the aligned crop as a PNG file, where it is to be kept.
    """

    face_id: str
    embedding: NDArray[np.float32]
    quality: FaceQuality | None
    crop_digest: str = ""
    expires_at: datetime | None = None
    crop: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PersonRecord:
    """Somebody with everything that a gallery holds of them: what an export writes and an import reads.

    Attributes:
        created_at: None for somebody who is new.
    """

    person_id: str
    name: str | None
    metadata: Mapping[str, Any]
    faces: tuple[NewFace, ...]
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What became of one record of an import.

    Attributes:
        added: faces stored.
        present: faces that the person had already.
        error: why nothing of the record was stored; None when it was.
    """

    added: int = 0
    present: int = 0
    error: DomainError | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What a deletion took away.

    Attributes:
        crop_digests: of the faces that went, so that caches can forget them too.
        revision: of the data folder after the deletion.
        crops: kept crops that went.
    """

    persons: int
    faces: int
    index_entries: int
    revision: int
    crop_digests: tuple[str, ...] = ()
    crops: int = 0


@dataclass(frozen=True, slots=True)
class Expiry:
    """Faces of one person whose time had come, and what their erasure took away: the person too, with the last one."""

    gallery: str
    person_id: str
    removal: Removal
