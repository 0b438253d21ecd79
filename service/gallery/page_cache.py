"""How much of the database the writing connection keeps in memory."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

# KiB. Ids are spread over their indexes, so that each change of a large gallery touches a dozen pages of its own:
# an import reads pages more than it writes rows unless they stay, and the few changes of every day would only fill
# memory for good.
FEW_KIB = 2_048
MANY_KIB = 32_768
# Rows changed within the time below from which on pages are worth keeping.
_MANY_ROWS = 5_000
_WITHIN_S = 10.0


class PageCache:
    """Gives a connection many pages of memory while many rows change, and few else. Not safe between threads.

    Args:
        connection: outside of a transaction whenever this is called.
        clock: seconds that never go back.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._since_s, self._rows = clock(), connection.total_changes
        self._kib = 0
        self._set(FEW_KIB)

    def follow(self) -> None:
        """To be called after a commit."""
        now_s, rows = self._clock(), self._connection.total_changes
        many = rows - self._rows >= _MANY_ROWS
        if many or now_s - self._since_s >= _WITHIN_S:
            self._since_s, self._rows = now_s, rows
            self._set(MANY_KIB if many else FEW_KIB)

    def _set(self, kib: int) -> None:
        if kib != self._kib:
            self._kib = kib
            # Negative for KiB instead of pages; SQLite lets go at once of what is too much.
            self._connection.execute(f"PRAGMA cache_size = {-kib}")
