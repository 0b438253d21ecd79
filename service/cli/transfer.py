"""`shrinkface import` and `shrinkface export`: whole galleries, in and out of the data folder or a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from service.bootstrap import build
from service.cli.configuration import DataDir, Gallery, settings_of
from service.cli.connection import ApiKey
from service.cli.rendering import private_file, say, told
from service.client import AsyncShrinkFace
from service.client.models import ImportOutcome, ImportSummary
from service.domain import InvalidRequest
from service.settings import Settings
from service.transfer.exporting import export
from service.transfer.importing import Importer, ImportTotals
from service.transfer.outcomes import OutcomeFile
from service.transfer.sources import MAX_LINE_BYTES, source_of

Url = Annotated[str | None, typer.Option(help="Call the service that is there, instead of working on the data folder.")]

_OUTCOMES_AT_ONCE = 1_000


def import_gallery(
    source: Annotated[Path, typer.Argument(help="Folder of folders of pictures, NDJSON file, or .npy of embeddings.")],
    gallery: Gallery = None,
    ids: Annotated[Path | None, typer.Option(help="Person ids of the .npy file's rows, one a line.")] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="File that says what became of each person; an interrupted import goes on.")
    ] = None,
    data_dir: DataDir = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Import persons. Those who cannot be stored are noted, the others go on; a second run adds what is missing."""
    settings = settings_of(data_dir=data_dir)
    name = gallery or settings.default_gallery
    noted = outcomes or Path(f"{source.name or 'import'}.outcomes.ndjson")
    with told():
        if url is None:
            totals = asyncio.run(_import(settings, source.resolve(), ids, name, noted))
        else:
            totals = _upload(AsyncShrinkFace(url, api_key), url, source.resolve(), name, noted)
    say(
        f"{name}: {totals.added:,} faces stored, {totals.present:,} there already, of {totals.persons:,} persons; "
        f"{totals.failed:,} persons failed, {totals.pictures_skipped:,} pictures skipped. {noted} says which"
    )
    raise typer.Exit(code=1 if totals.failed or totals.pictures_skipped else 0)


def export_gallery(
    target: Annotated[Path, typer.Argument(help="NDJSON file to write.")],
    gallery: Gallery = None,
    data_dir: DataDir = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Write a gallery with its embeddings as NDJSON, which `shrinkface import` reads back."""
    settings = settings_of(data_dir=data_dir)
    name = gallery or settings.default_gallery
    with told(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("persons", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if url is None:
            persons, faces = asyncio.run(_export(settings, name, target, advance))
            told_of = f"{persons:,} persons, {faces:,} faces"
        else:
            persons = asyncio.run(_download(AsyncShrinkFace(url, api_key), name, target, advance))
            told_of = f"{persons:,} persons"
    say(f"{target}: {told_of}")


async def _import(settings: Settings, path: Path, ids: Path | None, name: str, noted: Path) -> ImportTotals:
    async with AsyncExitStack() as stack:
        running = await build(settings, stack)
        source = source_of(path, ids=ids, space_id=running.identity.space_id, max_image_bytes=settings.max_image_bytes)
        job = {"import": str(path), "gallery": name, "space_id": running.identity.space_id}
        file = stack.enter_context(OutcomeFile(noted, job))
        importer = Importer(running.gallery, name, running.enrolment, pictures_at_once=2 * settings.vision_workers)
        columns = (*Progress.get_default_columns(), TextColumn("{task.fields[rate]}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(source.unit, total=source.total, rate="")
            started = time.monotonic()

            def advance(position: int, totals: ImportTotals) -> None:
                rate = (totals.added + totals.present) / max(time.monotonic() - started, 1e-3)
                bar.update(task, completed=position, rate=f"{rate:,.0f} faces/s")

            return await importer.run(source, file, advance)


def _upload(client: AsyncShrinkFace, url: str, path: Path, name: str, noted: Path) -> ImportTotals:
    if not path.is_file() or path.suffix == ".npy":
        raise InvalidRequest(f"{path} is no NDJSON file, and only that goes to a service", field="source")
    waiting: list[ImportOutcome] = []
    with OutcomeFile(noted, {"import": str(path), "gallery": name, "url": url}) as file, path.open("rb") as stream:

        def note() -> None:
            file.write([outcome.model_dump(mode="json", exclude_defaults=True) for outcome in waiting])
            waiting.clear()

        def on_outcome(outcome: ImportOutcome) -> None:
            waiting.append(outcome)
            if len(waiting) >= _OUTCOMES_AT_ONCE:
                note()

        async def run(lines: Iterator[bytes]) -> ImportSummary:
            async with client:
                return await client.import_gallery(name, lines, on_outcome=on_outcome)

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("bytes", total=path.stat().st_size)
            try:
                summary = asyncio.run(run(_lines(stream, file.done, lambda size: bar.update(task, completed=size))))
            finally:
                note()
    return ImportTotals(**summary.model_dump())


def _lines(stream: IO[bytes], done: frozenset[str], advance: Callable[[int], None]) -> Iterator[bytes]:
    """Lines of a file. Those that are done are sent empty, which keeps the numbers of the others."""
    number = size = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        size += len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise InvalidRequest(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
        yield b"\n" if f"line {number}" in done else line
        advance(size)


async def _export(settings: Settings, name: str, target: Path, advance: Callable[[int, int], None]) -> tuple[int, int]:
    async with AsyncExitStack() as stack:
        running = await build(settings, stack)
        space_id = running.identity.space_id
        return await export(running.gallery, name, target, space_id=space_id, progress=advance)


async def _download(client: AsyncShrinkFace, name: str, target: Path, advance: Callable[[int, int], None]) -> int:
    persons = 0
    async with client:
        total = (await client.gallery(name)).persons
        with private_file(target) as stream:
            async for line in client.export_gallery(name):
                stream.write(line + b"\n")
                persons += 1
                advance(persons, max(total, persons))
    return persons
