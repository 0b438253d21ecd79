"""What is remembered of requests: what the use cases need of a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """Who did what and when; never biometric.

    Attributes:
        actor: id of the API key; `anonymous` where none is asked for, `system` for what the service does by itself.
        action: such as `person.enrol`.
        person_id: None for what concerns a whole gallery.
        counts: such as faces stored or erased.
    """

    at: datetime
    actor: str
    action: str
    gallery: str
    person_id: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer that a request with the same Idempotency-Key had.

    Attributes:
        fingerprint: of that request.
        person_id: whom it enrolled.
        answer: as JSON; None when the person has been erased since.
    """

    fingerprint: str
    gallery: str
    person_id: str
    answer: bytes | None


class Journal(Protocol):
    """What is remembered of requests: who changed what, and the answers to those that may be repeated."""

    async def note(self, entry: JournalEntry) -> None:
        """Keep an entry; when this returns, it survives the death of the process."""

    async def entries(
        self, *, gallery: str | None, person_id: str | None, before: int | None, limit: int
    ) -> list[tuple[int, JournalEntry]]:
        """Entries with their numbers, newest first, of one gallery or person if asked, before an entry's number."""

    async def replay(self, key: str) -> Replay | None:
        """What a repeatable request of this key was answered; None if there was none of late."""

    async def keep(self, key: str, replay: Replay) -> None:
        """Remember an answer for repetition, durably, for a day."""

    async def erase(self, gallery: str, person_id: str | None) -> int:
        """Erase the answers that tell of a person, or of everybody in a gallery; how many there were."""

    async def prune(self) -> None:
        """Let go of answers that are a day old, and of entries that are older than entries are kept."""

    async def close(self) -> None:
        """Finish what was begun."""
