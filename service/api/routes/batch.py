"""Many pictures in one request, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from service.access import Scope
from service.api.bodies import Submission, pictures_of, read_submission, request_body
from service.api.dependencies import Running, RunningService
from service.api.problems import documented, problem_body
from service.api.rendering import FastJSONResponse
from service.api.routes.recognition import PICTURE_PROBLEMS, enrolled, identified
from service.api.schemas.answers import BatchEnrolOut, BatchIdentifyOut
from service.api.schemas.requests import BatchEnrolFields, IdentifyFields
from service.api.security import Authenticated
from service.domain import DomainError, InvalidRequest

router = APIRouter(prefix="/v1/batch", tags=["batches"])

# Pictures of one batch that are worked on together: enough to fill the network's batches, and no more than leaves
# room for others.
_AT_ONCE = 8
_BATCH_PROBLEMS = tuple(code for code in PICTURE_PROBLEMS if not code.startswith("image-"))


@router.post(
    "/identify",
    response_model=BatchIdentifyOut,
    summary="Say who is in each of many pictures",
    responses=documented(*_BATCH_PROBLEMS),
    openapi_extra=request_body(IdentifyFields, {"images": "many"}, ["images"]),
)
async def identify_batch(request: Request, running: Running, caller: Authenticated) -> FastJSONResponse:
    """As `/identify` for each picture, with the same fields for all."""
    caller.require(Scope.IDENTIFY)
    submission = await read_submission(request, running.settings, ("images",), max_pictures=running.settings.max_batch)
    fields = submission.parse(IdentifyFields)
    pictures = submission.pictures.get("images", [])
    if not pictures:
        raise InvalidRequest("at least one picture is needed", field="images")
    await caller.spend(running.access, len(pictures) - 1)

    async def one(picture: bytes) -> tuple[int, dict[str, Any]]:
        return 200, (await identified(running, caller, picture, fields)).model_dump(mode="json")

    return FastJSONResponse({"items": await _outcomes(request, [one(picture) for picture in pictures])})


@router.post(
    "/enroll",
    response_model=BatchEnrolOut,
    summary="Enrol many persons",
    responses=documented(*_BATCH_PROBLEMS),
    openapi_extra=request_body(BatchEnrolFields, {"images": "many"}, [], files_only=True),
)
async def enroll_batch(request: Request, running: Running, caller: Authenticated) -> FastJSONResponse:
    """As `/enroll` for each item. In JSON an item has its `image` or `images`; in multipart each has one of the files.

    Items are stored one by one: those that fail leave the others alone. With `on_existing` set to `extend`, a batch
    that is sent again stores nothing twice.
    """
    caller.require(Scope.ENROLL)
    submission = await read_submission(request, running.settings, ("images",), max_pictures=running.settings.max_batch)
    items = _items(submission, running)
    await caller.spend(running.access, len(items) - 1)

    async def one(item: Submission) -> tuple[int, dict[str, Any]]:
        answer = await enrolled(running, caller, item)
        return answer.status, answer.body

    return FastJSONResponse({"items": await _outcomes(request, [one(item) for item in items])})


def _items(submission: Submission, running: RunningService) -> list[Submission]:
    fields = submission.parse(BatchEnrolFields)
    files = submission.pictures.get("images", [])
    if files and not submission.as_text:
        raise InvalidRequest("in JSON an item has its pictures itself", field="images")
    if files and len(files) != len(fields.items):
        raise InvalidRequest(f"there are {len(fields.items)} items and {len(files)} pictures", field="images")
    items = []
    for index, content in enumerate(fields.items):
        item = pictures_of(content, ("image", "images"))
        if files:
            item = Submission({"image": [files[index]], **item.pictures}, item.fields)
        items.append(Submission(item.pictures, {"gallery": fields.gallery, **item.fields}))
    total = sum(len(pictures) for item in items for pictures in item.pictures.values())
    if total > running.settings.max_batch:
        limit = running.settings.max_batch
        raise InvalidRequest(f"the batch has {total} pictures, at most {limit} are accepted", limit=limit)
    return items


async def _outcomes(request: Request, work: Sequence[Awaitable[tuple[int, dict[str, Any]]]]) -> list[dict[str, Any]]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def outcome(index: int, item: Awaitable[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        try:
            async with places:
                status, result = await item
        except DomainError as error:
            problem = problem_body(request.state.request_id, error.code, error.message, error.details)
            return {"index": index, "status": problem["status"], "result": None, "problem": problem}
        return {"index": index, "status": status, "result": result, "problem": None}

    return await asyncio.gather(*(outcome(index, item) for index, item in enumerate(work)))
