"""Requests that may be repeated: the same Idempotency-Key, the same answer, and nothing stored twice.

The answer is kept without names, so that it need not be found and erased when a person is; on repetition the names
are what they are then. A crash between storing and keeping the answer is covered too: the ids of what is stored follow
from the key, so a repetition finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response

from service.api.bodies import Submission
from service.api.dependencies import RunningService
from service.api.rendering import FastJSONResponse
from service.domain import (
    GalleryNotFound,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    PersonErased,
    PersonNotFound,
)
from service.identification import NewId
from service.ports import Replay

HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    # HTTP takes spaces at either end away.
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    "description": "Yours for this request. For a day, a repetition with the same key is answered as the first was.",
}
PROBLEMS = ("idempotency-key-reused", "idempotency-in-progress", "person-erased")

_MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about one person.

    Attributes:
        nameless: `body` without what must not outlive the person.
    """

    status: int
    body: dict[str, Any]
    nameless: dict[str, Any]
    gallery: str
    person_id: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Once:
    """A request with an Idempotency-Key.

    Attributes:
        key: hash of actor, call and the header.
        fingerprint: hash of all that was sent.
    """

    key: str
    fingerprint: str

    @classmethod
    def of(cls, request: Request, actor: str, submission: Submission) -> Once | None:
        """None for a request without the header. Raises InvalidRequest when it is not acceptable."""
        given = request.headers.get("idempotency-key")
        if given is None:
            return None
        if not 1 <= len(given) <= _MAX_KEY or not given.isascii() or not given.isprintable():
            raise InvalidRequest(
                f"an Idempotency-Key is 1 to {_MAX_KEY} printable ASCII characters", field="Idempotency-Key"
            )
        return cls(_hash(actor.encode(), request.url.path.encode(), given.encode()), _fingerprint(submission))

    def new_id(self, kind: str, index: int) -> str:
        """See `NewId`: the same for every repetition."""
        return f"{kind}-{_hash(self.key.encode(), kind.encode(), str(index).encode())[:32]}"


async def answered_once(
    running: RunningService,
    once: Once | None,
    work: Callable[[NewId | None], Awaitable[Answer]],
    complete: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
) -> Response:
    """Do what a request asks for, unless it has been done.

    Args:
        work: does it, with a source of ids if the request may be repeated.
        complete: puts names into a nameless body. Raises PersonNotFound or GalleryNotFound when they have been erased.

    Raises:
        IdempotencyInProgress: the same request is being worked on.
        IdempotencyKeyReused: the key came with another request.
        PersonErased: whom the request enrolled has been erased since.
    """
    if once is None:
        return _rendered(await work(None))
    if once.key in running.in_progress:
        raise IdempotencyInProgress("a request with this Idempotency-Key is being worked on", retry_after_s=1)
    running.in_progress.add(once.key)
    try:
        replay = await running.journal.replay(once.key)
        if replay is not None:
            return await _replayed(replay, once, complete)
        answer = await work(once.new_id)
        kept = orjson.dumps({"status": answer.status, "headers": answer.headers, "body": answer.nameless})
        await running.journal.keep(once.key, Replay(once.fingerprint, answer.gallery, answer.person_id, kept))
        return _rendered(answer)
    finally:
        running.in_progress.discard(once.key)


def _rendered(answer: Answer) -> Response:
    return FastJSONResponse(answer.body, status_code=answer.status, headers=dict(answer.headers))


async def _replayed(
    replay: Replay, once: Once, complete: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
) -> Response:
    if replay.fingerprint != once.fingerprint:
        raise IdempotencyKeyReused("this Idempotency-Key came with another request before")
    gone = PersonErased("whom this request enrolled has been erased since", person_id=replay.person_id)
    if replay.answer is None:
        raise gone
    kept = orjson.loads(replay.answer)
    try:
        body = await complete(kept["body"])
    except (GalleryNotFound, PersonNotFound) as error:
        raise gone from error
    headers = {**kept["headers"], "Idempotent-Replayed": "true"}
    return FastJSONResponse(body, status_code=kept["status"], headers=headers)


def _fingerprint(submission: Submission) -> str:
    try:
        parts = [orjson.dumps(dict(submission.fields), option=orjson.OPT_SORT_KEYS)]
    except orjson.JSONEncodeError:
        raise InvalidRequest("the fields are nested too deeply") from None
    for field in sorted(submission.pictures):
        parts.append(field.encode())
        parts += [hashlib.sha256(picture).digest() for picture in submission.pictures[field]]
    return _hash(*parts)


def _hash(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
