"""Faces whose time has come: hidden from searches at once, whenever their rows get erased."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from service.gallery import reads
from service.gallery.collection import IndexCollection
from service.gallery.records import now_us
from service.gallery.store import Store

_NEVER = 2**63


class ExpiryWatch:
    """Knows when the next face expires, so that a search costs one comparison until then.

    All methods are safe to call from several threads.
    """

    def __init__(self, store: Store, indexes: IndexCollection) -> None:
        self._store, self._indexes = store, indexes
        self._lock = threading.Lock()
        self._next_us = store.read(lambda connection: reads.next_expiry_us(connection, 0)) or _NEVER

    @contextmanager
    def expecting(self, expiries_us: Iterable[int | None]) -> Iterator[None]:
        """Note when new faces expire, around bringing them into an index; both before anybody is told of them.

        Before, so that no search sees them too late, and again afterwards, since a `hide` in between has met them in
        the store and not yet in the index.
        """
        soonest = min((each for each in expiries_us if each is not None), default=_NEVER)
        self._expect(soonest)
        try:
            yield
        finally:
            self._expect(soonest)

    def _expect(self, expiry_us: int) -> None:
        with self._lock:
            self._next_us = min(self._next_us, expiry_us)

    @property
    def due(self) -> bool:
        """Whether there may be faces whose time has come."""
        return self._next_us <= now_us()

    def hide(self) -> None:
        """Take faces whose time has come out of the indexes. Blocks."""
        if not self.due:
            return
        with self._lock:
            now = now_us()
            for gallery, expired in self._store.expired_keys(now).items():
                self._indexes.hide(gallery, expired)
            self._next_us = self._store.read(lambda connection: reads.next_expiry_us(connection, now)) or _NEVER
