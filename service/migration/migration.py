"""A change of model while the service answers: fill a folder beside, compare, switch, go back, clean up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import structlog

from service import bundled
from service.contract import ContractError, read_manifest
from service.domain import DomainError, InvalidRequest, MigrationConflict, StorageUnusable
from service.gallery.active import Place, Places, place_of, remove_place, write_places
from service.gallery.embedded import EmbeddedGallery
from service.migration.comparing import Agreement, compared
from service.migration.embedding import CropEmbedder
from service.migration.guard import Gate, GuardedGallery, Shadow
from service.migration.links import LinkedCache, ServedJournal
from service.migration.synchronising import Lacking, Synchroniser
from service.ports import Journal

C = TypeVar("C")
State = Literal["idle", "embedding", "comparing", "ready", "switched", "failed"]

INTERRUPTED = "the service was stopped before it was done; start it again, and it goes on"
REMAINS = "the folder that is not served could not be removed, and erasures do not reach it; abandon it again"

_log = structlog.get_logger()


@dataclass(slots=True)
class Side(Generic[C]):
    """A model's folder, open.

    Attributes:
        stack: closes what belongs to it.
        container: what serves it, once it has been made.
    """

    place: Place
    gallery: EmbeddedGallery
    guard: GuardedGallery
    journal: Journal
    cache: LinkedCache
    stack: AsyncExitStack
    container: C | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a migration is.

    Attributes:
        active: the model that is served.
        other: the model that is prepared, or with `switched` the one that can be gone back to.
        faces_per_s: looked at so far.
        again, again_more: who has faces that could not be carried over, and how many persons more have.
        problem: why it failed.
    """

    state: State
    active: Place
    other: Place | None = None
    faces_done: int = 0
    faces_total: int = 0
    faces_per_s: float = 0.0
    agreement: Agreement | None = None
    again: tuple[Lacking, ...] = ()
    again_more: int = 0
    started_at: datetime | None = None
    problem: str | None = None


@dataclass(slots=True)
class _Work:
    """What a migration under way has at hand."""

    synchroniser: Synchroniser
    embedder: CropEmbedder
    started: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    faces_total: int = 0
    faces_done: int = 0
    took_s: float | None = None
    agreement: Agreement | None = None


class Migration(Generic[C]):
    """The one change of model that a service may be in. Methods that change something are done one after the other.

    Args:
        data_dir: holds `active.json` and the folders.
        places: what is there.
        active, other: its sides, open; `other` is the previous or the pending one.
        gate: that `active.guard` and `journal` wait at.
        journal: of whatever is served.
        open_side: opens a place.
        serve: makes what serves a side.
        grace_s: how long a request may still be answered by a model that is served no more.
    """

    def __init__(
        self,
        data_dir: Path,
        places: Places,
        active: Side[C],
        other: Side[C] | None,
        *,
        gate: Gate,
        journal: ServedJournal,
        open_side: Callable[[Place], Awaitable[Side[C]]],
        serve: Callable[[Side[C]], Awaitable[C]],
        grace_s: float,
    ) -> None:
        self._data_dir, self._places = data_dir, places
        self._active, self._other = active, other
        self._gate, self._journal = gate, journal
        self._open_side, self._serve, self._grace_s = open_side, serve, grace_s
        self._adopt: list[Callable[[C], None]] = []
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._work: _Work | None = None
        self._switched_at = -grace_s
        self._problem: str | None = None
        self._state: State = "idle"
        if other is not None:
            self._link(active, other)
            self._state = "switched" if places.previous is not None else "failed"
            self._problem = INTERRUPTED if places.pending is not None else None

    def on_switch(self, adopt: Callable[[C], None]) -> None:
        """Call `adopt` with what is served from then on, at every switch, within one turn of the event loop."""
        self._adopt.append(adopt)

    def status(self) -> Status:
        """How far it is."""
        other = self._other.place if self._other is not None else None
        status = Status(self._state, self._active.place, other, problem=self._problem)
        if (work := self._work) is None:
            return status
        took_s = work.took_s if work.took_s is not None else time.monotonic() - work.started
        return replace(
            status,
            # Faces may be enrolled and erased while it counts.
            faces_done=min(work.faces_done, work.faces_total),
            faces_total=work.faces_total,
            faces_per_s=work.faces_done / max(took_s, 1e-3),
            agreement=work.agreement,
            again=tuple(work.synchroniser.lacking),
            again_more=work.synchroniser.lacking_more,
            started_at=work.started_at,
        )

    async def start(self, model: Path) -> Status:
        """Begin to embed everybody by another model, in the background; one that was interrupted goes on.

        Raises:
            InvalidRequest: it is no usable model, or of the space that is served already.
            MigrationConflict: a migration is under way, or the previous one has not been cleaned up.
            FolderInUse, StorageFull, StorageUnusable.
        """
        return await _unbroken(self._start(model))

    async def switch(self) -> Status:
        """Serve the new model from now on. Changes wait while what is new since is copied; searches go on.

        Raises:
            MigrationConflict: it is not ready.
            StorageFull, StorageUnusable: nothing has changed.
        """
        return await _unbroken(self._switch())

    async def back(self) -> Status:
        """Serve the previous model again, with whoever has been enrolled since, as far as their crops are kept.

        Raises:
            MigrationConflict: there is none.
            InvalidRequest: its model is gone; nothing has changed.
            StorageFull, StorageUnusable: nothing has changed.
        """
        return await _unbroken(self._back())

    async def abandon(self) -> Status:
        """Remove the folder beside the one that is served: the new one before a switch, the previous one after it.

        Raises:
            MigrationConflict: there is none.
            StorageUnusable: it could not be removed; asking again tries again.
        """
        return await _unbroken(self._abandon())

    async def close(self) -> None:
        """Stop what runs in the background and close both sides."""
        async with self._one_at_a_time:
            await self._end_task()
            await self._end_work()
            if self._other is not None:
                await self._other.stack.aclose()
            await self._active.stack.aclose()

    async def _start(self, model: Path) -> Status:
        async with self._one_at_a_time:
            if self._state not in ("idle", "failed"):
                raise MigrationConflict(f"a migration is there already, in state {self._state}", state=self._state)
            place = await asyncio.to_thread(_checked, model)
            if place.space_id == self._active.place.space_id:
                raise InvalidRequest("this model is the one that is served", field="model")
            if self._other is not None and (
                self._other.place.space_id != place.space_id or self._active.guard.shadow is None
            ):
                raise MigrationConflict("an earlier migration is unfinished; abandon it first", state=self._state)
            embedder = await asyncio.to_thread(_opened, place.embedder)
            try:
                await self._prepare(place)
            except BaseException:
                await embedder.close()
                raise
            assert self._other is not None and self._active.guard.shadow is not None
            await self._end_work()
            synchroniser = Synchroniser(self._active.gallery, self._active.guard.shadow, erase=True)
            self._work, self._problem, self._state = _Work(synchroniser, embedder), None, "embedding"
            _log.info("migration begun", space_id=place.space_id)
            self._task = asyncio.create_task(self._run(self._work, self._other))
            return self.status()

    async def _switch(self) -> Status:
        async with self._one_at_a_time:
            if self._state != "ready" or self._work is None or self._other is None:
                raise MigrationConflict(f"the migration is not ready to switch, but {self._state}", state=self._state)
            await self._exchange(self._work.synchroniser, self._work.embedder)
            return self.status()

    async def _back(self) -> Status:
        async with self._one_at_a_time:
            if self._state != "switched" or self._other is None or self._active.guard.shadow is None:
                raise MigrationConflict("there is no previous model to go back to", state=self._state)
            embedder = await asyncio.to_thread(_opened, self._other.place.embedder)
            await self._end_work()
            # What is gone here went from there as well; what else is there are faces whose crops were not kept.
            synchroniser = Synchroniser(self._active.gallery, self._active.guard.shadow, erase=False)
            self._work = _Work(synchroniser, embedder)
            await self._exchange(synchroniser, embedder)
            return self.status()

    async def _abandon(self) -> Status:
        async with self._one_at_a_time:
            if self._other is None:
                raise MigrationConflict("there is no migration", state=self._state)
            await self._end_task()
            await self._end_work()
            await asyncio.sleep(max(0.0, self._switched_at + self._grace_s - time.monotonic()))
            other, place = self._other, self._other.place
            # No erasure may be acknowledged between the last one that reached the folder and the folder's end.
            async with self._gate.closed():
                self._active.guard.shadow = self._journal.beside = self._active.cache.beside = None
                self._problem, self._state = REMAINS, "failed"
                await other.stack.aclose()
                await asyncio.to_thread(remove_place, self._data_dir, place)
                places = replace(self._places, previous=None, pending=None)
                await asyncio.to_thread(write_places, self._data_dir, places)
                self._places, self._other, self._problem, self._state = places, None, None, "idle"
            _log.info("migration ended", removed=place.space_id)
            return self.status()

    async def _prepare(self, place: Place) -> None:
        """The folder of a new model beside the served one, known to `active.json` before there is anything in it."""
        if self._other is not None:
            return
        places = replace(self._places, pending=place)
        await asyncio.to_thread(write_places, self._data_dir, places)
        self._places = places
        try:
            self._other = await self._open_side(place)
        except BaseException:
            self._places = replace(places, pending=None)
            await asyncio.to_thread(write_places, self._data_dir, self._places)
            raise
        self._link(self._active, self._other)

    def _link(self, active: Side[C], other: Side[C]) -> None:
        """From now on what is erased from the one goes from the other too."""
        other.guard.shadow = None
        other.guard.successor, active.guard.successor = active.guard, None
        active.guard.shadow = Shadow(other.gallery)
        active.cache.beside, other.cache.beside = other.cache.own, active.cache.own
        self._journal.current, self._journal.beside = active.journal, other.journal

    async def _run(self, work: _Work, other: Side[C]) -> None:
        before: CropEmbedder | None = None
        try:
            work.faces_total = sum(each.faces for each in await self._active.gallery.galleries())

            def advance(faces: int) -> None:
                work.faces_done += faces

            await other.gallery.take_over(self._active.gallery)
            await work.synchroniser.round(work.embedder.embed, advance)
            work.took_s = time.monotonic() - work.started
            self._state = "comparing"
            before = await asyncio.to_thread(CropEmbedder, self._active.place.embedder)
            work.agreement = await compared(self._active.gallery, before, other.gallery, work.embedder)
            self._state = "ready"
            _log.info("migration ready", space_id=other.place.space_id, faces=work.faces_done)
        except (DomainError, ContractError, OSError) as error:
            self._state, self._problem = "failed", str(error)
            _log.error("migration failed", reason=str(error))
        except Exception:  # noqa: BLE001 - nobody awaits it, and untold the migration would seem to go on
            self._state, self._problem = "failed", "an unexpected error, which the log has"
            _log.exception("migration failed")
        finally:
            if before is not None:
                await before.close()

    async def _exchange(self, synchroniser: Synchroniser, embedder: CropEmbedder) -> None:
        """The other side served, and the active one kept beside it."""
        old, new = self._active, self._other
        assert new is not None
        try:
            served = new.container = new.container or await self._serve(new)
        except ContractError as error:
            raise MigrationConflict(f"the model cannot be used: {error}", state=self._state) from error
        in_haste = partial(embedder.embed, in_haste=True)
        # Most of what is new goes over before anybody has to wait.
        await new.gallery.take_over(old.gallery)
        await synchroniser.round(in_haste)
        async with self._gate.closed():
            await new.gallery.take_over(old.gallery)
            await synchroniser.round(in_haste)
            places = self._places.switched(new.place)
            try:
                await asyncio.to_thread(write_places, self._data_dir, places)
            except StorageUnusable:
                # It may have been replaced all the same.
                await asyncio.to_thread(write_places, self._data_dir, self._places)
                raise
            # From here on nothing can fail, and nothing else runs until all of it is done.
            self._places, self._active, self._other = places, new, old
            self._link(new, old)
            self._state, self._problem, self._switched_at = "switched", None, time.monotonic()
            for adopt in self._adopt:
                adopt(served)
        _log.info("model switched", space_id=new.place.space_id, before=old.place.space_id)

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _end_work(self) -> None:
        if self._work is not None:
            work, self._work = self._work, None
            await work.embedder.close()


async def _unbroken(step: Coroutine[Any, Any, Status]) -> Status:
    """Carry a step out to its end, also when the caller stops waiting in the middle of a switch."""
    return await asyncio.shield(asyncio.create_task(step))


def _checked(model: Path) -> Place:
    """The place of a model that can be served. Raises InvalidRequest."""
    model = bundled.located(model)
    if not model.is_absolute() or not model.is_file():
        raise InvalidRequest(
            "model is the absolute path of a file on the service's machine, or the name of a network that comes along",
            field="model",
        )
    try:
        manifest = read_manifest(model)
    except ContractError as error:
        raise InvalidRequest(f"the model cannot be used: {error}", field="model") from error
    if manifest.role != "embedder" or manifest.impostor_scores is None:
        raise InvalidRequest("the model is no embedder, or its manifest states no impostor scores", field="model")
    return place_of(model)


def _opened(model: Path) -> CropEmbedder:
    """Raises InvalidRequest."""
    try:
        return CropEmbedder(model)
    except Exception as error:
        # onnxruntime has a dozen kinds, with no base of their own.
        raise InvalidRequest(f"the model cannot be used: {error}", field="model") from error
