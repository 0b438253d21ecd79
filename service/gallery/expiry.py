"""Faces whose time has come: hidden from searches at once, whenever their rows get erased."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

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

    def expect(self, expiries_us: Iterable[int | None]) -> None:
        """Note when new faces expire; called before anybody is told that they are stored."""
        soonest = min((each for each in expiries_us if each is not None), default=_NEVER)
        with self._lock:
            self._next_us = min(self._next_us, soonest)

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
            keys: dict[str, list[int]] = {}
            for gallery, key in self._store.read(lambda connection: reads.expired_keys(connection, now)):
                keys.setdefault(gallery, []).append(key)
            for gallery, expired in keys.items():
                self._indexes.hide(gallery, np.array(expired, dtype=np.int64))
            self._next_us = self._store.read(lambda connection: reads.next_expiry_us(connection, now)) or _NEVER
