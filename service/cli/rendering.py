"""How commands speak: tables for people, JSON lines for programs, progress and failures on standard error."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from service.client import ShrinkFaceError
from service.contract import ContractError
from service.demo import DemoError
from service.domain import DomainError

AsJson = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each thing, for other programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def told() -> Iterator[None]:
    """Say what went wrong, and end with status 1."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        raise
    except (ShrinkFaceError, DomainError, ContractError, DemoError, OSError) as error:
        complain(str(error))
        raise typer.Exit(code=1) from error


def complain(message: str) -> None:
    """A line on standard error."""
    Console(stderr=True).print(Text(plain(message), style="red"), soft_wrap=True)


def say(message: str, style: str = "") -> None:
    """A line on standard output, as it is."""
    Console().print(Text(plain(message), style=style), soft_wrap=True, highlight=False)


def print_json(content: BaseModel | Mapping[str, Any]) -> None:
    """A line of JSON on standard output."""
    members = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    typer.echo(json.dumps(members))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on standard output; names with a colon behind are of figures."""
    table = Table()
    for column in columns:
        table.add_column(column.removesuffix(":"), justify="right" if column.endswith(":") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain("-" if cell is None else str(cell))) for cell in row))
    Console().print(table)


def plain(text: str) -> str:
    """Text from outside without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


@contextmanager
def progress(unit: str, total: int | None) -> Iterator[Progress]:
    """A bar with one task, on standard error, where that is a terminal and there is more than one thing to do."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=total == 1) as bar:
        bar.add_task(unit, total=total)
        yield bar


def confirmed(question: str, *, yes: bool) -> None:
    """Return if the user agrees; ends the command otherwise."""
    if not yes:
        typer.confirm(plain(question), abort=True, err=True)


@contextmanager
def private_file(target: Path) -> Iterator[IO[bytes]]:
    """A file that only its owner may read, and that is there when all of it is."""
    partial = target.with_name(f"{target.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
