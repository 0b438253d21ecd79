"""One thread that changes galleries in Milvus: what waits together is read, worked out and written together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from service.domain import DomainError, NotReady, Overloaded
from service.gallery.milvus.draft import Change, Draft, read_draft
from service.gallery.milvus.recent import Recent
from service.gallery.milvus.tables import Tables
from service.gallery.records import now_us

# Changes of a round. The strong reads before it take some 0.4 s on a server, however many changes share them.
_MOST_CHANGES = 512


@dataclass(slots=True)
class _Job:
    """A change, or without one a look at the galleries, for which the faces of one may be counted."""

    change: Change | None = None
    counted: str | None = None
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """Makes the changes of one process, in the order in which they came.

    A round reads, by strong reads, what its changes concern; works them out; erases; stores faces; and stores persons
    last, so that nobody exists before all of their faces do. Then the searches of this process are told, and only then
    the callers.

    Milvus knows no transaction. A round that fails in mid-write is taken back as far as Milvus lets it be, and its
    callers hear GalleryUnavailable: whether their change happened is open until they look. Two processes that enrol
    the same new id within the same round trip both succeed, and the person has the faces of both; likewise both pass
    with a revision that either of them has read, and both tell of what they found expired. What a process enrols within
    the round trip in which another ends a drop of the gallery may be left behind as nobody's.
    """

    def __init__(self, tables: Tables, recent: Recent, *, max_pending: int) -> None:
        self._tables, self._recent = tables, recent
        self._max_pending = max_pending
        self._pending: deque[_Job] = deque()
        self._looking: dict[str | None, Future[Any]] = {}
        self._wakes = threading.Condition()
        self._closing = False
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="gallery-writer-read")
        self._thread = threading.Thread(target=self._run, name="gallery-writer", daemon=True)
        self._thread.start()

    def submit(self, change: Change) -> Future[Any]:
        """Queue a change; the future brings what it answers, or its DomainError. Raises Overloaded, NotReady."""
        with self._wakes:
            if len(self._pending) >= self._max_pending:
                raise Overloaded("too many changes wait to be stored")
            return self._queue(_Job(change))

    def look(self, counted: str | None = None) -> Future[Any]:
        """Have the galleries looked at, and the faces of one counted; looks that wait already are shared.

        Raises NotReady.
        """
        with self._wakes:
            waiting = self._looking.get(counted)
            if waiting is None:
                waiting = self._looking[counted] = self._queue(_Job(counted=counted))
            return waiting

    def close(self) -> None:
        """Make the changes that wait, then stop."""
        with self._wakes:
            self._closing = True
            self._wakes.notify()
        self._thread.join()
        self._beside.shutdown()

    def _queue(self, job: _Job) -> Future[Any]:
        if self._closing:
            raise NotReady("the gallery is closed")
        self._pending.append(job)
        self._wakes.notify()
        return job.future

    def _run(self) -> None:
        while True:
            with self._wakes:
                while not self._pending and not self._closing:
                    self._wakes.wait()
                if not self._pending:
                    return
                jobs = [self._pending.popleft() for _ in range(min(len(self._pending), _MOST_CHANGES))]
                for job in jobs:
                    if job.change is None:
                        del self._looking[job.counted]
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            try:
                self._round(jobs)
            except Exception as error:  # noqa: BLE001 - the callers wait, and the thread must go on
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _round(self, jobs: list[_Job]) -> None:
        read_at = time.monotonic()
        draft = read_draft(self._tables, [job.change for job in jobs if job.change is not None], self._beside)
        self._recent.know(draft.galleries)
        for gallery in {job.counted for job in jobs if job.counted is not None}:
            at_us = now_us()
            faces = self._tables.count_faces(gallery) if gallery in draft.galleries.existing else 0
            self._recent.counted(gallery, faces, at_us)
            # Both collections have now been read strongly.
            self._recent.settle(read_at)
        answers: list[tuple[_Job, Any]] = []
        for job in jobs:
            if job.change is None:
                answers.append((job, None))
                continue
            try:
                answers.append((job, job.change.apply(draft)))
            except DomainError as error:
                job.future.set_exception(error)
        if draft.is_changed:
            self._write(draft)
        for job, answer in answers:
            job.future.set_result(answer)

    def _write(self, draft: Draft) -> None:
        gone = [key for key, person in draft.changed.items() if person is None]
        self._tables.delete_people([*gone, *draft.swept_people])
        self._tables.delete_faces([*draft.erased, *draft.swept_faces])
        self._tables.end_galleries(draft.ended, draft.galleries.last)
        try:
            self._tables.insert_faces(list(draft.stored.values()))
            people = [person for person in draft.changed.values() if person is not None]
            galleries = {name: draft.galleries.existing[name] for name in draft.touched}
            self._tables.store_people(people, galleries, draft.alive)
        except DomainError:
            self._take_back(draft)
            raise
        for gallery in draft.ended:
            self._recent.drop(gallery)
        # Faces that belonged to nobody were in no search, but they were in the count.
        erased = [face for face in draft.erased.values() if face is not None]
        self._recent.record(draft.stored.values(), erased, draft.changed, draft.touched)
        for gallery in draft.dropped:
            self._recent.drop(gallery)
        self._recent.know(draft.galleries)

    def _take_back(self, draft: Draft) -> None:
        try:
            self._tables.delete_faces(draft.stored)
        except DomainError:
            # Faces of persons without a row belong to nobody: searches pass them over, the next enrolment erases them.
            return
