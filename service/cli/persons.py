"""`shrinkface persons`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.configuration import Gallery, settings_of
from service.cli.connection import Connection, calling
from service.cli.rendering import Yes, complain, confirmed, print_json, print_table, private_file, say
from service.client import AsyncShrinkFace
from service.client.models import Person, Receipt, StoredFace

app = typer.Typer(help="Look after who is enrolled.", no_args_is_help=True)

PersonId = Annotated[str, typer.Argument(help="The person's id.", metavar="PERSON_ID")]


@app.command("list")
@calling
def list_persons(
    connection: Connection,
    gallery: Gallery = None,
    name: Annotated[str | None, typer.Option(help="A part of the name, in any case.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A top-level value of the metadata; may be given several times."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="List at most so many.")] = 1000,
) -> None:
    """List persons by id."""
    wanted = dict(_condition(each) for each in metadata or ())

    async def work(client: AsyncShrinkFace) -> list[Person]:
        found: list[Person] = []
        persons = client.persons(_gallery(gallery), name=name, metadata=wanted, page_size=min(limit + 1, 1000))
        # One more than asked tells whether there are others.
        async for person in persons:
            found.append(person)
            if len(found) > limit:
                break
        return found

    found = connection.run(work)
    if connection.as_json:
        for person in found[:limit]:
            print_json(person)
    else:
        rows = [
            (person.person_id, person.name, len(person.face_ids), f"{person.created_at:%Y-%m-%d %H:%M}")
            for person in found[:limit]
        ]
        print_table(("person", "name", "faces:", "since"), rows)
    if len(found) > limit:
        complain(f"there are more than {limit:,}; --limit says how many to list")


@app.command("show")
@calling
def show_person(connection: Connection, person_id: PersonId, gallery: Gallery = None) -> None:
    """Show a person and their faces."""

    async def work(client: AsyncShrinkFace) -> tuple[Person, tuple[StoredFace, ...]]:
        name = _gallery(gallery)
        return await client.person(name, person_id), await client.faces(name, person_id)

    person, faces = connection.run(work)
    if connection.as_json:
        print_json({**person.model_dump(mode="json"), "faces": [face.model_dump(mode="json") for face in faces]})
        return
    say(f"{person.person_id} in {person.gallery}: {person.name or 'nameless'}, revision {person.revision}")
    if person.metadata:
        print_table(("metadata", "value"), person.metadata.items())
    rows = [
        (
            face.face_id,
            None if face.quality is None else f"{face.quality.side_px:.0f}",
            f"{face.created_at:%Y-%m-%d %H:%M}",
            None if face.expires_at is None else f"{face.expires_at:%Y-%m-%d %H:%M}",
            "kept" if face.crop_kept else None,
        )
        for face in faces
    ]
    print_table(("face", "side px:", "since", "until", "crop"), rows)


@app.command("rename")
@calling
def rename_person(
    connection: Connection,
    person_id: PersonId,
    name: Annotated[str, typer.Argument(help="The new name; empty takes it away.")],
    gallery: Gallery = None,
) -> None:
    """Change a person's name."""
    person = connection.run(lambda client: client.update_person(_gallery(gallery), person_id, name=name or None))
    if connection.as_json:
        print_json(person)
    else:
        say(f"{person.person_id} in {person.gallery}: {person.name or 'nameless'}")


@app.command("delete")
@calling
def delete_person(connection: Connection, person_id: PersonId, gallery: Gallery = None, yes: Yes = False) -> None:
    """Erase a person everywhere, and say what was removed."""

    async def work(client: AsyncShrinkFace) -> Receipt:
        name = _gallery(gallery)
        person = await client.person(name, person_id)
        called = f", {person.name}," if person.name else ""
        confirmed(f"Erase {person_id}{called} with {len(person.face_ids)} faces from {name}?", yes=yes)
        return await client.delete_person(name, person_id)

    show_receipt(connection, connection.run(work))


@app.command("export")
@calling
def export_person(
    connection: Connection,
    person_id: PersonId,
    gallery: Gallery = None,
    out: Annotated[Path | None, typer.Option(help="File to write, for its owner alone; by default the output.")] = None,
) -> None:
    """Write all that is stored of a person, as JSON: for somebody who asks what is known of them."""
    dossier = connection.run(lambda client: client.export_person(_gallery(gallery), person_id))
    if out is None:
        print_json(dossier)
        return
    with private_file(out) as stream:
        stream.write(dossier.model_dump_json(indent=1).encode() + b"\n")
    say(f"{out}: {len(dossier.faces)} faces, {len(dossier.journal)} entries of the journal")


def show_receipt(connection: Connection, receipt: Receipt) -> None:
    """What an erasure took away."""
    if connection.as_json:
        print_json(receipt)
        return
    of = receipt.gallery if receipt.person_id is None else f"{receipt.person_id} in {receipt.gallery}"
    cached = "cache did not answer" if receipt.cache_entries is None else f"{receipt.cache_entries} cached embeddings"
    say(
        f"erased {of} at {receipt.erased_at:%Y-%m-%d %H:%M:%S %Z}: {receipt.persons} persons, {receipt.faces} faces, "
        f"{receipt.index_entries} index entries, {receipt.crops} crops, {cached}, {receipt.kept_answers} kept answers"
    )


def _gallery(name: str | None) -> str:
    return name if name is not None else settings_of().default_gallery


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--metadata")
    return key, value
