"""`shrinkface gallery`: the data folder as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from service.cli.configuration import DataDir, settings_of
from service.cli.migrate import migrate_gallery
from service.cli.rendering import say, told
from service.gallery.active import gallery_folder
from service.gallery.audit import audit
from service.gallery.backup import back_up

app = typer.Typer(help="Look after the folder of the enrolled galleries.", no_args_is_help=True)
app.command("migrate")(migrate_gallery)


@app.command("verify")
def verify_gallery(data_dir: DataDir = None) -> None:
    """Check the data folder: the file, references, counts, every embedding, and that the erased is gone."""
    with told():
        folder = gallery_folder(settings_of(data_dir=data_dir).data_dir)
    with told(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embeddings", total=None)
        found = audit(folder, lambda done, total: bar.update(task, completed=done, total=total))
    say(
        f"{folder}: {found.galleries} galleries, {found.persons:,} persons, {found.faces:,} faces, "
        f"revision {found.revision}, "
        + ("snapshots not looked at" if found.snapshots is None else f"{found.snapshots} snapshots")
    )
    for finding in found.findings:
        say(finding, "red")
    if found.findings:
        say("damaged", "red")
        raise typer.Exit(code=1)
    say("sound", "green")


@app.command("backup")
def back_up_gallery(
    target: Annotated[Path, typer.Argument(help="Folder to make; it can be served like the original.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the data folder as it is at this moment, while a service goes on using it."""
    with told():
        size = back_up(gallery_folder(settings_of(data_dir=data_dir).data_dir), target)
    say(f"{target}: {size / 1e6:.1f} MB")
