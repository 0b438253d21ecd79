"""What routes are given: the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.access import Access
from service.bootstrap import Container
from service.domain import ServiceIdentity, check_gallery_name
from service.identification import CustodyService, EnrolmentService, IdentificationService
from service.ports import Gallery, Journal
from service.settings import Settings


class RunningService:
    """The container as routes need it."""

    def __init__(self, container: Container) -> None:
        self.settings: Settings = container.settings
        self.identity: ServiceIdentity = container.identity
        self.access: Access = container.access
        self.enrolment: EnrolmentService = container.enrolment
        self.identification: IdentificationService = container.identification
        self.custody: CustodyService = container.custody
        self.gallery: Gallery = container.gallery
        self.journal: Journal = container.journal
        # Keys of repeatable requests that are being worked on.
        self.in_progress: set[str] = set()

    def gallery_name(self, asked: str | None) -> str:
        """The gallery that a request means, checked."""
        return check_gallery_name(asked if asked is not None else self.settings.default_gallery)


def _running(request: Request) -> RunningService:
    running: RunningService = request.state.running
    return running


Running = Annotated[RunningService, Depends(_running)]
