"""A typed client of the service, for Python: `ShrinkFace`, and `AsyncShrinkFace` for event loops.

It imports nothing else of the service, and needs neither a model nor a data folder.
"""

from service.client.asynchronous import AsyncShrinkFace
from service.client.errors import (
    ImportStopped,
    InvalidArgument,
    PictureNotFetched,
    ProblemError,
    ShrinkFaceError,
    UnexpectedAnswer,
    Unreachable,
)
from service.client.recognition import NewPerson
from service.client.stored import UNCHANGED
from service.client.synchronous import ShrinkFace

__all__ = [
    "AsyncShrinkFace",
    "ImportStopped",
    "InvalidArgument",
    "NewPerson",
    "PictureNotFetched",
    "ProblemError",
    "ShrinkFace",
    "ShrinkFaceError",
    "UNCHANGED",
    "UnexpectedAnswer",
    "Unreachable",
]
