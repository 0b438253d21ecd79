"""The `shrinkface` command."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table

from service.api.app import create_app
from service.bootstrap import build
from service.contract import ContractError, read_manifest
from service.demo import DemoError, run_demo
from service.domain import DomainError
from service.gallery.audit import audit
from service.gallery.backup import back_up
from service.settings import Settings
from service.telemetry import configure_logging
from service.transfer.exporting import export
from service.transfer.importing import Importer, ImportTotals
from service.transfer.outcomes import OutcomeFile
from service.transfer.sources import source_of

app = typer.Typer(help="Face identification service.", no_args_is_help=True, pretty_exceptions_enable=False)
model_app = typer.Typer(help="Look at models.", no_args_is_help=True)
app.add_typer(model_app, name="model")
gallery_app = typer.Typer(help="Look after the folder of the enrolled galleries.", no_args_is_help=True)
app.add_typer(gallery_app, name="gallery")

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the enrolled galleries; by default that of the settings.")
]

# Commands that other packages bring, such as the benchmarks of the training package: found at run time, so that the
# service imports nothing of them.
for _plugin in entry_points(group="shrinkface.commands"):
    app.add_typer(_plugin.load(), name=_plugin.name)


def _settings(**overrides: object) -> Settings:
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the enrolled galleries.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console.")] = None,
) -> None:
    """Serve until interrupted; every other setting comes from SHRINKFACE_ variables or .env."""
    settings = _settings(host=host, port=port, data_dir=data_dir, log_format=log_format)
    configure_logging(settings.log_level, settings.log_format)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_keep_alive=10,
            timeout_graceful_shutdown=20,
            limit_concurrency=2000,
        )
    )
    server.run()
    if not server.started:
        raise typer.Exit(code=1)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the table instead of serving on.")] = False,
    port: Annotated[int, typer.Option(help="Port to try; a free one is taken if it is busy.")] = 8000,
) -> None:
    """Enrol two portraits, identify changed versions of them, and show the outcome."""
    try:
        passed = run_demo(port=port, once=once)
    except (DemoError, DomainError, ContractError) as error:
        raise _failed(error) from error
    raise typer.Exit(code=0 if passed else 1)


@model_app.command("show")
def show_models() -> None:
    """What the configured models are: name, space, size, teacher, figures."""
    settings = _settings()
    table = Table("model", "figure", "value")
    for path in (settings.embedder_path, settings.detector_path):
        try:
            manifest = read_manifest(path)
        except ContractError as error:
            table.add_row(str(path.name), "error", str(error))
            continue
        rows = {
            "role": manifest.role,
            "space_id": manifest.space_id or "-",
            "parameters": f"{manifest.parameters:,}",
            "megabytes": f"{manifest.size_bytes / 1e6:.2f}",
            "teacher": manifest.teacher,
            "licence": manifest.licence,
            **{key: str(value) for key, value in manifest.metrics.items()},
        }
        for key, value in rows.items():
            table.add_row(manifest.name, key, value)
    Console().print(table)


@gallery_app.command("verify")
def verify_gallery(data_dir: DataDir = None) -> None:
    """Check the data folder: the file, references, counts, every embedding, and that the erased is gone."""
    folder = _settings(data_dir=data_dir).data_dir
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("embeddings", total=None)
            found = audit(folder, lambda done, total: bar.update(task, completed=done, total=total))
    except DomainError as error:
        raise _failed(error) from error
    console = Console()
    console.print(
        f"{folder}: {found.galleries} galleries, {found.persons:,} persons, {found.faces:,} faces, "
        f"revision {found.revision}, "
        + ("snapshots not looked at" if found.snapshots is None else f"{found.snapshots} snapshots")
    )
    for finding in found.findings:
        console.print(f"[red]{escape(finding)}")
    console.print("[red]damaged" if found.findings else "[green]sound")
    raise typer.Exit(code=1 if found.findings else 0)


@gallery_app.command("backup")
def back_up_gallery(
    target: Annotated[Path, typer.Argument(help="Folder to make; it can be served like the original.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the data folder as it is at this moment, while a service goes on using it."""
    folder = _settings(data_dir=data_dir).data_dir
    try:
        size = back_up(folder, target)
    except DomainError as error:
        raise _failed(error) from error
    Console().print(f"{target}: {size / 1e6:.1f} MB")


Gallery = Annotated[str | None, typer.Option(help="Name of the gallery; by default that of the settings.")]


@app.command("import")
def import_gallery(
    source: Annotated[Path, typer.Argument(help="Folder of folders of pictures, NDJSON file, or .npy of embeddings.")],
    gallery: Gallery = None,
    ids: Annotated[Path | None, typer.Option(help="Person ids of the .npy file's rows, one a line.")] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="File that says what became of each person; an interrupted import goes on.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Import persons. Those who cannot be stored are noted, the others go on; a second run adds what is missing."""
    settings = _settings(data_dir=data_dir)
    name = gallery or settings.default_gallery
    noted = outcomes or Path(f"{source.name or 'import'}.outcomes.ndjson")
    try:
        totals = asyncio.run(_import(settings, source.resolve(), ids, name, noted))
    except (DomainError, ContractError) as error:
        raise _failed(error) from error
    Console().print(
        f"{name}: {totals.added:,} faces stored, {totals.present:,} there already, of {totals.persons:,} persons; "
        f"{totals.failed:,} persons failed, {totals.pictures_skipped:,} pictures skipped. {noted} says which"
    )
    raise typer.Exit(code=1 if totals.failed or totals.pictures_skipped else 0)


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


@app.command("export")
def export_gallery(
    target: Annotated[Path, typer.Argument(help="NDJSON file to write.")],
    gallery: Gallery = None,
    data_dir: DataDir = None,
) -> None:
    """Write a gallery with its embeddings as NDJSON, which `shrinkface import` reads back."""
    settings = _settings(data_dir=data_dir)
    name = gallery or settings.default_gallery

    async def run() -> tuple[int, int]:
        async with AsyncExitStack() as stack:
            running = await build(settings, stack)
            with Progress(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task("persons", total=None)
                return await export(
                    running.gallery,
                    name,
                    target,
                    space_id=running.identity.space_id,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

    try:
        persons, faces = asyncio.run(run())
    except (DomainError, ContractError) as error:
        raise _failed(error) from error
    Console().print(f"{target}: {persons:,} persons, {faces:,} faces")


def _failed(error: Exception) -> typer.Exit:
    Console(stderr=True).print(f"[red]{escape(str(error))}")
    return typer.Exit(code=1)


if __name__ == "__main__":
    app()
