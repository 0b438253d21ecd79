"""The fuzzing targets by name, and the inputs that are kept of each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

CORPUS = Path(__file__).with_name("corpus")
_MODULES = {
    "decoder": "tests.fuzz.decoder",
    "requests": "tests.fuzz.requesting",
    # To see that faults are found.
    "planted": "tests.fuzz.planted",
}
NAMES = ("decoder", "requests")


class Target(Protocol):
    """What a module of a target has.

    Attributes:
        NAME: of the target and of its folder in the corpus.
        MAX_BYTES: longest input that is tried.
        MAX_GROWTH_MB: by how much one input may raise the resident memory at its peak.
    """

    NAME: str
    MAX_BYTES: int
    MAX_GROWTH_MB: int

    def check(self, data: bytes) -> None:
        """Try an input; raises when a promise is broken."""

    def seeds(self) -> dict[str, bytes]:
        """Inputs to begin with, by name."""

    def tokens(self) -> list[bytes]:
        """What a mutation may put in."""

    def mutated(self, data: bytes, max_size: int, seed: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
        """Another input."""


def target(name: str) -> Target:
    """The target of a name; imports what it tries."""
    return cast(Target, import_module(_MODULES[name]))


def inputs(tried: Target) -> dict[str, bytes]:
    """Seeds and all that was found, by name."""
    found = {path.name: path.read_bytes() for path in sorted((CORPUS / tried.NAME).glob("*")) if path.is_file()}
    return {**tried.seeds(), **found}
