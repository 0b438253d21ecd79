"""`shrinkface galleries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from service.cli.connection import Connection, calling
from service.cli.persons import show_receipt
from service.cli.rendering import Yes, confirmed, print_json, print_table
from service.client import UNCHANGED, AsyncShrinkFace
from service.client.models import Gallery, Receipt

app = typer.Typer(help="Look after galleries.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The gallery's name.")]
_DEFAULT = "default"


@app.command("list")
@calling
def list_galleries(connection: Connection) -> None:
    """List galleries."""
    _show(connection, connection.run(lambda client: client.galleries()))


@app.command("show")
@calling
def show_gallery(connection: Connection, name: Name) -> None:
    """Show a gallery's size and settings."""
    _show(connection, [connection.run(lambda client: client.gallery(name))])


@app.command("create")
@calling
def create_gallery(
    connection: Connection,
    name: Name,
    target_fpir: Annotated[
        float | None, typer.Option(help="False-positive identification rate to decide at; by default the service's.")
    ] = None,
    quality_gate: Annotated[
        Literal["off", "standard", "strict"] | None,
        typer.Option(help="What a face must have to be enrolled; by default the service's."),
    ] = None,
    keep_crops: Annotated[
        bool, typer.Option("--keep-crops", help="Keep aligned crops, so that a change of model can embed them anew.")
    ] = False,
) -> None:
    """Begin an empty gallery with settings of its own."""
    gallery = connection.run(
        lambda client: client.create_gallery(
            name, target_fpir=target_fpir, quality_gate=quality_gate, keep_crops=keep_crops
        )
    )
    _show(connection, [gallery])


@app.command("configure")
@calling
def configure_gallery(
    connection: Connection,
    name: Name,
    target_fpir: Annotated[str | None, typer.Option(metavar="RATE|default", help="See `create`.")] = None,
    quality_gate: Annotated[
        Literal["off", "standard", "strict", "default"] | None, typer.Option(help="See `create`.")
    ] = None,
    keep_crops: Annotated[bool | None, typer.Option("--keep-crops/--no-keep-crops", help="See `create`.")] = None,
) -> None:
    """Change a gallery's settings; what is not given stays, and `default` follows the service again."""
    gallery = connection.run(
        lambda client: client.configure_gallery(
            name,
            target_fpir=UNCHANGED if target_fpir is None else _rate(target_fpir),
            quality_gate=UNCHANGED if quality_gate is None else None if quality_gate == "default" else quality_gate,
            keep_crops=UNCHANGED if keep_crops is None else keep_crops,
        )
    )
    _show(connection, [gallery])


@app.command("delete")
@calling
def delete_gallery(connection: Connection, name: Name, yes: Yes = False) -> None:
    """Erase a gallery and everybody in it, and say what was removed."""

    async def work(client: AsyncShrinkFace) -> Receipt:
        gallery = await client.gallery(name)
        confirmed(f"Erase {name} with {gallery.persons:,} persons and {gallery.faces:,} faces?", yes=yes)
        return await client.delete_gallery(name)

    show_receipt(connection, connection.run(work))


def _rate(text: str) -> float | None:
    if text == _DEFAULT:
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a rate nor `default`", param_hint="--target-fpir") from None


def _show(connection: Connection, galleries: Sequence[Gallery]) -> None:
    if connection.as_json:
        for gallery in galleries:
            print_json(gallery)
        return
    rows = [
        (
            gallery.name,
            f"{gallery.persons:,}",
            f"{gallery.faces:,}",
            gallery.settings.target_fpir or _DEFAULT,
            gallery.settings.quality_gate or _DEFAULT,
            "kept" if gallery.settings.keep_crops else None,
            gallery.revision,
        )
        for gallery in galleries
    ]
    print_table(("gallery", "persons:", "faces:", "FPIR:", "quality gate", "crops", "revision:"), rows)
