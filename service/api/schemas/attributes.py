"""What an answer says of a face beyond who it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.domain import AttributeReading, ClassReading, ScoreReading


class ClassOut(BaseModel):
    """One of several classes: the most probable one, its probability, and those of all."""

    kind: Literal["classes"]
    value: str
    probability: float
    probabilities: dict[str, float]


class ValueOut(BaseModel):
    """A number, such as an age; `unit` is null for a bare one."""

    kind: Literal["value"]
    value: float
    unit: str | None


class ScoreOut(BaseModel):
    """Whether something is so, such as that a face is live: taken to be when `probability` reaches `threshold`."""

    kind: Literal["score"]
    value: bool
    probability: float
    threshold: float


AttributeOut = Annotated[ClassOut | ValueOut | ScoreOut, Field(discriminator="kind")]


def attribute_out(reading: AttributeReading) -> ClassOut | ValueOut | ScoreOut:
    """From the domain."""
    if isinstance(reading, ClassReading):
        return ClassOut(
            kind="classes",
            value=reading.value,
            probability=round(reading.probability, 4),
            probabilities={label: round(each, 4) for label, each in reading.probabilities.items()},
        )
    if isinstance(reading, ScoreReading):
        return ScoreOut(
            kind="score",
            value=reading.value,
            probability=round(reading.probability, 4),
            threshold=reading.threshold,
        )
    return ValueOut(kind="value", value=round(reading.value, 2), unit=reading.unit)
