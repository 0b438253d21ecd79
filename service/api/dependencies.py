"""What routes are given: the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.bootstrap import Container
from service.domain import ServiceIdentity, check_gallery_name
from service.identification import IdentificationService
from service.ports import Gallery
from service.settings import Settings


class RunningService:
    """The container as routes need it."""

    def __init__(self, container: Container) -> None:
        self.settings: Settings = container.settings
        self.identity: ServiceIdentity = container.identity
        self.service: IdentificationService = container.service
        self.gallery: Gallery = container.gallery

    def gallery_name(self, asked: str | None) -> str:
        """The gallery that a request means, checked."""
        return check_gallery_name(asked if asked is not None else self.settings.default_gallery)


def _running(request: Request) -> RunningService:
    running: RunningService = request.state.running
    return running


Running = Annotated[RunningService, Depends(_running)]
