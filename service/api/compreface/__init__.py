"""The calls that CompreFace's clients make, answered by this service: its terms in ours, its answers, its errors."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.compreface import detection, faces, recognize, subjects, verification
from service.api.compreface.problems import refusal

__all__ = ["PREFIX", "refusal", "router"]

PREFIX = "/api/v1/"

router = APIRouter(tags=["compreface"])
for routes in (subjects, faces, recognize, verification, detection):
    router.include_router(routes.router)
