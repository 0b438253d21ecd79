"""Tables that are whole on a terminal and in a file."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

# Where nobody looks at a window, its width is no reason to cut words.
_WIDTH_IN_A_FILE = 170


def show(table: Table) -> None:
    """Print it."""
    Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE).print(table)


def span(rate: float, interval: tuple[float, float], digits: int = 2) -> str:
    """A rate in percent with its interval."""
    low, high = interval
    return f"{rate:.{digits}%} ({low:.{digits}%} to {high:.{digits}%})"
