"""A journal for services that keep nothing themselves: entries go to the log, answers stay in memory for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import structlog

from service.ports import Journal, JournalEntry, Replay

_REPLAYED_FOR_S = 24 * 3_600.0
_MOST_REPLAYS = 10_000

_log = structlog.get_logger("journal")


def log_fields(entry: JournalEntry) -> dict[str, Any]:
    """An entry as members of a log line."""
    return {
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "gallery": entry.gallery,
        "person_id": entry.person_id,
        **entry.counts,
    }


class LogJournal(Journal):
    """`Journal` whose entries are log lines, for whatever collects the logs of all replicas.

    Answers are kept in this process alone. A repetition that another replica gets, or this one after a restart, still
    stores nothing twice, since ids follow from the request; it is only answered anew.
    """

    def __init__(self) -> None:
        self._replays: OrderedDict[str, tuple[float, Replay]] = OrderedDict()

    async def note(self, entry: JournalEntry) -> None:
        """Write a log line."""
        _log.info("journal", **log_fields(entry))

    async def entries(
        self, *, gallery: str | None, person_id: str | None, before: int | None, limit: int
    ) -> list[tuple[int, JournalEntry]]:
        """None: they are where the logs are."""
        return []

    async def replay(self, key: str) -> Replay | None:
        """See `Journal.replay`."""
        at, found = self._replays.get(key, (0.0, None))
        return found if time.monotonic() - at < _REPLAYED_FOR_S else None

    async def keep(self, key: str, replay: Replay) -> None:
        """Remember an answer in this process."""
        self._replays[key] = (time.monotonic(), replay)
        self._replays.move_to_end(key)
        while len(self._replays) > _MOST_REPLAYS:
            self._replays.popitem(last=False)

    async def erase(self, gallery: str, person_id: str | None) -> int:
        """See `Journal.erase`."""
        erased = 0
        for key, (at, replay) in list(self._replays.items()):
            concerned = replay.gallery == gallery and person_id in (None, replay.person_id)
            if concerned and replay.answer is not None:
                self._replays[key] = (at, Replay(replay.fingerprint, gallery, replay.person_id, None))
                erased += 1
        return erased

    async def prune(self) -> None:
        """Let go of answers that are a day old."""
        bound = time.monotonic() - _REPLAYED_FOR_S
        for key in [key for key, (at, _) in self._replays.items() if at < bound]:
            del self._replays[key]

    async def close(self) -> None:
        """Nothing to let go of."""
