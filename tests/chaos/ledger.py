"""What the service acknowledged, refused and left open, to compare with what it has in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """By person id; safe to use from several threads.

    Attributes:
        enrolled: acknowledged.
        erased: whose erasure was acknowledged.
        refused: of whom the service said that nothing was stored.
        open: asked for, without an answer that says what became of it: enrolments and erasures.
    """

    enrolled: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, book: set[str], person_id: str) -> None:
        with self.lock:
            book.add(person_id)

    def compare(self, found: Mapping[str, int]) -> Differences:
        """Against the people that the service has, with their numbers of faces; everybody has one."""
        with self.lock:
            return Differences(
                lost=sorted(self.enrolled - self.erased - self.open - found.keys()),
                back=sorted(self.erased & found.keys()),
                unasked=sorted((self.refused - self.enrolled) & found.keys()),
                halved=sorted(person_id for person_id, faces in found.items() if faces != 1),
            )


@dataclass(frozen=True)
class Differences:
    """What must not be.

    Attributes:
        lost: enrolled, never erased, and not there.
        back: erased, and there.
        unasked: refused, and there.
        halved: without their face.
    """

    lost: list[str]
    back: list[str]
    unasked: list[str]
    halved: list[str]

    def all(self) -> Iterable[str]:
        for kind in ("lost", "back", "unasked", "halved"):
            yield from (f"{kind}: {person_id}" for person_id in getattr(self, kind))
