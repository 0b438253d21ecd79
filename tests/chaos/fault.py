"""What a fault is: something that goes wrong under a service at work, and is mended again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.chaos.load import NO_ANSWER, REFUSED, Load
from tests.chaos.process import ServiceProcess

GONE = frozenset((REFUSED, NO_ANSWER))


class NotRunnableError(Exception):
    """This machine lacks what the fault needs."""


@dataclass
class Scene:
    """What a fault may do harm to.

    Attributes:
        folder: for whatever the fault needs; the data folder is in it, unless the fault puts it elsewhere.
    """

    folder: Path
    service: ServiceProcess
    load: Load


class Fault(ABC):
    """One fault. The methods are called once each, in this order; between `begin` and `end` the load goes on.

    Attributes:
        name: on the command line and in the report.
        what: happens, in words.
        allowed: kinds of answers that requests may get beside the right one, while it lasts and until it is overcome.
        shows: at least one request must get one of these, or the harm was none.
        during_s: from `begin` to `end`.
        verified: the data folder is one that `gallery verify` checks in the end.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    allowed: ClassVar[frozenset[str]] = frozenset()
    shows: ClassVar[frozenset[str]] = frozenset()
    during_s: ClassVar[float] = 6.0
    verified: ClassVar[bool] = True

    def prepare(self, scene: Scene) -> None:  # noqa: B027 - most faults need nothing
        """Before the service is started. Raises NotRunnableError."""

    @abstractmethod
    def begin(self, scene: Scene) -> None:
        """Do harm."""

    @abstractmethod
    def end(self, scene: Scene) -> None:
        """Mend it; how long the service then needs is measured from when this returns."""

    def felt(self, scene: Scene) -> bool:
        """Whether the harm reached the service, where answers do not show it; asked when the load has ended."""
        return True

    def clean(self, scene: Scene) -> None:  # noqa: B027 - most faults leave nothing
        """Leave nothing behind, also after a failure."""
