"""One thread that changes galleries in Milvus: what waits together is read, worked out and written together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from service.domain import DomainError, NotReady, Overloaded
from service.gallery.milvus.changes import Change, Draft, read_draft
from service.gallery.milvus.recent import Recent
from service.gallery.milvus.tables import Tables

# Changes of a round. The strong reads before it take some 0.4 s on a server, however many changes share them.
_MOST_CHANGES = 512


@dataclass(slots=True)
class _Job:
    """A change, or with None a count of the gallery's faces."""

    gallery: str
    change: Change | None
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """Makes the changes of one process, in the order in which they came.

    A round reads, by strong reads, what its changes concern; works them out; erases; stores faces; and stores persons
    last, so that nobody exists before all of their faces do. Then the searches of this process are told, and only then
    the callers.

    Milvus knows no transaction. A round that fails in mid-write is taken back as far as Milvus lets it be, and its
    callers hear GalleryUnavailable: whether their change happened is open until they look. Two processes that enrol
    the same new id within the same round trip both succeed, and the person has the faces of both.
    """

    def __init__(self, tables: Tables, recent: Recent, *, max_pending: int) -> None:
        self._tables, self._recent = tables, recent
        self._max_pending = max_pending
        self._pending: deque[_Job] = deque()
        self._counting: dict[str, Future[Any]] = {}
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
            return self._queue(_Job(change.gallery, change))

    def count(self, gallery: str) -> Future[Any]:
        """Have a gallery's faces counted; counts that wait already are shared. Raises NotReady."""
        with self._wakes:
            waiting = self._counting.get(gallery)
            if waiting is None:
                waiting = self._counting[gallery] = self._queue(_Job(gallery, None))
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
                        del self._counting[job.gallery]
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
        for gallery in {job.gallery for job in jobs if job.change is None}:
            self._recent.counted(gallery, self._tables.count_faces(gallery) if gallery in draft.revisions else 0)
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
        if draft.touched:
            self._write(draft)
        for job, answer in answers:
            job.future.set_result(answer)

    def _write(self, draft: Draft) -> None:
        gone = [key for key, person in draft.changed.items() if person is None]
        self._tables.delete_people(gone)
        self._tables.delete_faces(draft.erased)
        try:
            self._tables.insert_faces(list(draft.stored.values()))
            people = [person for person in draft.changed.values() if person is not None]
            self._tables.store_people(people, {name: draft.revisions[name] for name in draft.touched})
        except DomainError:
            self._take_back(draft)
            raise
        # Faces that belonged to nobody were in no search, but they were in the count.
        erased = [(face.gallery, key) for key, face in draft.erased.items() if face is not None]
        self._recent.record(draft.stored.values(), erased, draft.changed, draft.touched)

    def _take_back(self, draft: Draft) -> None:
        try:
            self._tables.delete_faces(draft.stored)
        except DomainError:
            # Faces of persons without a row belong to nobody: searches pass them over, the next enrolment erases them.
            return
