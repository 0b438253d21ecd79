"""The HTTP application: a factory, with the builder of what it serves injected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TypedDict

import structlog
from fastapi import FastAPI
from fastapi.responses import Response
from starlette.types import Scope

from service import bootstrap
from service.api import compreface, problems
from service.api.admission import Admission, Admitted
from service.api.dependencies import RunningService
from service.api.middleware import RequestContext
from service.api.problems import problem_response
from service.api.routes import batch, galleries, journal, migration, operations, persons, recognition, transfers
from service.bootstrap import Container
from service.console import routes as console
from service.domain import Overloaded
from service.settings import Settings

Builder = Callable[[Settings, AsyncExitStack], Awaitable[Container]]

_log = structlog.get_logger()


class State(TypedDict):
    """What the lifespan hands to every request's `state`."""

    running: RunningService


def create_app(settings: Settings, builder: Builder = bootstrap.build, admission: Admission | None = None) -> FastAPI:
    """The application for one process.

    Args:
        settings: of this process.
        builder: makes the container when the application starts; tests inject their own.
        admission: shared with the server that is to drain it; the application's own unless given.
    """
    bounds = admission if admission is not None else admission_of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            container = await builder(settings, stack)
            _log.info("ready", space_id=container.identity.space_id, embedder=container.identity.embedder)
            running = RunningService(container, bounds)
            if container.migration is not None:
                container.migration.on_switch(running.adopt)
            yield {"running": running}
            _log.info("stopping")

    app = FastAPI(
        title="ShrinkFace",
        summary="Face identification against large galleries",
        version=version("shrinkface"),
        lifespan=lifespan,
        redoc_url=None,
    )
    routers = [
        module.router
        for module in (
            recognition,
            batch,
            galleries,
            persons,
            transfers,
            journal,
            migration,
            operations,
            compreface,
            console,
        )
    ]
    problems.install(app, [route for router in routers for route in router.routes])
    for router in routers:
        app.include_router(router)
    app.add_middleware(Admitted, admission=bounds, refusal=_refusal)
    app.add_middleware(RequestContext)
    return app


def admission_of(settings: Settings) -> Admission:
    """The bounds that settings ask for."""
    return Admission(max_requests=settings.max_requests, max_bodies_bytes=settings.max_bodies_bytes)


def _refusal(scope: Scope, error: Overloaded) -> Response:
    if scope["path"].startswith(compreface.PREFIX):
        return compreface.refusal(error)
    return problem_response(scope["state"]["request_id"], error.code, error.message, error.details)
