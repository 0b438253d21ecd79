"""Health and metrics, for the machines that watch."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.dependencies import Running
from service.api.problems import documented
from service.api.schemas.answers import HealthOut, ModelOut
from service.domain import NotReady
from service.telemetry import GALLERY_FACES

router = APIRouter(tags=["operations"])


@router.get("/health/live", response_model=HealthOut)
async def live() -> HealthOut:
    """The process runs and its event loop turns."""
    return HealthOut(status="ok", version=version("shrinkface"))


@router.get("/health/ready", response_model=HealthOut, responses=documented("not-ready"))
async def ready(running: Running) -> HealthOut:
    """Models and galleries are loaded and readable, and the process is not about to end."""
    if running.admission.draining:
        raise NotReady("the service is ending")
    await running.gallery.galleries()
    return HealthOut(status="ok", version=version("shrinkface"), model=ModelOut.of(running.identity))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(running: Running) -> Response:
    """Prometheus exposition."""
    GALLERY_FACES.clear()
    for summary in await running.gallery.galleries():
        GALLERY_FACES.labels(summary.name).set(summary.faces)
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
