"""A change of model while the service runs. For keys of scope `admin` that are for all galleries."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request

from service.access import Scope
from service.api.bodies import json_body, read_json
from service.api.dependencies import Running, RunningService
from service.api.problems import BODY_PROBLEMS, documented
from service.api.schemas.migration import MigrateFields, MigrationOut
from service.api.security import Authenticated, Caller
from service.bootstrap import Container
from service.domain import MigrationUnsupported
from service.migration import Migration

router = APIRouter(prefix="/v1/migration", tags=["operations"])

_PROBLEMS = ("migration-unsupported", "migration-conflict")
_DISK_PROBLEMS = ("storage-full", "storage-unusable")


@router.post(
    "",
    status_code=202,
    response_model=MigrationOut,
    summary="Begin a change of model",
    responses=documented(*BODY_PROBLEMS, *_PROBLEMS, *_DISK_PROBLEMS),
    openapi_extra=json_body(MigrateFields),
)
async def begin_migration(request: Request, running: Running, caller: Authenticated) -> MigrationOut:
    """Embed all kept crops by another model, in the background, and compare its answers with those of this one.

    Nothing is switched yet. A migration that was interrupted or failed goes on when it is begun again.
    """
    fields = (await read_json(request, running.settings)).parse(MigrateFields)
    return MigrationOut.of(await _migration(running, caller).start(Path(fields.model)))


@router.get("", response_model=MigrationOut, summary="Read the change of model", responses=documented(*_PROBLEMS[:1]))
async def read_migration(running: Running, caller: Authenticated) -> MigrationOut:
    """State, progress, agreement of both models, and who must be enrolled again."""
    return MigrationOut.of(_migration(running, caller).status())


@router.post(
    "/switch",
    response_model=MigrationOut,
    summary="Switch to the new model",
    responses=documented(*_PROBLEMS, *_DISK_PROBLEMS),
)
async def switch_model(running: Running, caller: Authenticated) -> MigrationOut:
    """Serve the new model from now on. Identification goes on meanwhile; changes wait until it is done.

    An enrolment that is under way at this moment is answered 503 and should be sent again.
    """
    return MigrationOut.of(await _migration(running, caller).switch())


@router.post(
    "/back",
    response_model=MigrationOut,
    summary="Go back to the previous model",
    responses=documented(*_PROBLEMS, *_DISK_PROBLEMS),
)
async def go_back(running: Running, caller: Authenticated) -> MigrationOut:
    """Serve the previous model again, with whoever has been enrolled since, as far as their crops are kept."""
    return MigrationOut.of(await _migration(running, caller).back())


@router.delete(
    "",
    response_model=MigrationOut,
    summary="End the change of model",
    responses=documented(*_PROBLEMS, *_DISK_PROBLEMS),
)
async def end_migration(running: Running, caller: Authenticated) -> MigrationOut:
    """Remove the embeddings that are not served: those of the new model before a switch, of the old one after it."""
    return MigrationOut.of(await _migration(running, caller).abandon())


def _migration(running: RunningService, caller: Caller) -> Migration[Container]:
    caller.require_everywhere(Scope.ADMIN)
    if running.migration is None:
        raise MigrationUnsupported(
            "this gallery cannot change its model while it runs: export it, and import the pictures into one under "
            "another SHRINKFACE_MILVUS_PREFIX"
        )
    return running.migration
