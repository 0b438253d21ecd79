"""What routes are given: the running service."""

from __future__ import annotations

from copy import copy
from typing import Annotated

from fastapi import Depends, Path, Request

from service.access import Access
from service.api.admission import Admission, Slot
from service.bootstrap import Container
from service.domain import GALLERY_NAME, PERSON_ID, ServiceIdentity, check_gallery_name
from service.identification import CustodyService, EnrolmentService, IdentificationService
from service.migration import Migration
from service.ports import Gallery, Journal
from service.settings import Settings


class RunningService:
    """The container as routes need it.

    Args:
        container: of the model that is served.
        admission: of the process.
    """

    def __init__(self, container: Container, admission: Admission) -> None:
        self.admission = admission
        # Keys of repeatable requests that are being worked on.
        self.in_progress: set[str] = set()
        self.adopt(container)

    def adopt(self, container: Container) -> None:
        """Serve another container from the next request on."""
        self.settings: Settings = container.settings
        self.identity: ServiceIdentity = container.identity
        self.access: Access = container.access
        self.enrolment: EnrolmentService = container.enrolment
        self.identification: IdentificationService = container.identification
        self.custody: CustodyService = container.custody
        self.gallery: Gallery = container.gallery
        self.journal: Journal = container.journal
        self.migration: Migration[Container] | None = container.migration

    def gallery_name(self, asked: str | None) -> str:
        """The gallery that a request means, checked."""
        return check_gallery_name(asked if asked is not None else self.settings.default_gallery)

    def max_faces(self, asked: int | None) -> int | None:
        """For how many faces to answer: who asks for more than the settings allow gets as many as they do."""
        return None if asked is None else min(asked, self.settings.max_faces)


# A plain function would be sent to a worker thread and waited for.
async def _running(request: Request) -> RunningService:
    # As it is now: a request is answered by one model from beginning to end, also when the model is changed meanwhile.
    running: RunningService = request.state.running
    return copy(running)


def slot_of(request: Request) -> Slot:
    """What the request takes up."""
    slot: Slot = request.state.slot
    return slot


Running = Annotated[RunningService, Depends(_running)]

# Parts of paths; what does not fit is refused before a route runs.
GalleryName = Annotated[str, Path(pattern=GALLERY_NAME.pattern, description="Name of the gallery.")]
PersonId = Annotated[str, Path(pattern=PERSON_ID.pattern, description="Id of the person.")]
FaceId = Annotated[str, Path(min_length=1, max_length=128, description="Id of the face.")]
