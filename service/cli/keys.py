"""`shrinkface keys`: the API keys of the service that reads the same file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from service.access import ApiKey, KeyFile, Scope
from service.cli.configuration import settings_of
from service.cli.rendering import AsJson, print_json, print_table, say, told
from service.telemetry import configure_logging

app = typer.Typer(help="Make and revoke API keys; a running service notices within seconds.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Data folder, where the keys are unless --keys-file says where.")]
KeysFile = Annotated[Path | None, typer.Option(help="File of the keys; by default that of the settings.")]


@app.command("create")
def create_key(
    scope: Annotated[Scope, typer.Option(help="What it may do; each includes those before it.")],
    gallery: Annotated[
        list[str] | None, typer.Option(help="Gallery that it is for; may be given several times. By default all.")
    ] = None,
    label: Annotated[str, typer.Option(help="What it is called in lists.")] = "",
    expires_days: Annotated[float | None, typer.Option(min=0.001, help="It is good for so many days.")] = None,
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it: it is not kept, and cannot be had again."""
    with told():
        key, token = _keys(data_dir, keys_file).create(
            scope,
            galleries=gallery or None,
            label=label,
            expires_at=None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days),
        )
    if as_json:
        print_json({**_members(key), "api_key": token})
    else:
        # Alone on its line, for a shell to take.
        typer.echo(token)


@app.command("list")
def list_keys(data_dir: DataDir = None, keys_file: KeysFile = None, as_json: AsJson = False) -> None:
    """List the keys, the oldest first; also those that have expired."""
    with told():
        keys = _keys(data_dir, keys_file).list()
    if as_json:
        for key in keys:
            print_json(_members(key))
        return
    rows = [
        (
            key.key_id,
            key.scope.value,
            "all" if key.galleries is None else ", ".join(key.galleries),
            key.label,
            f"{key.created_at:%Y-%m-%d}",
            None if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
        )
        for key in keys
    ]
    print_table(("id", "scope", "galleries", "label", "since", "until"), rows)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id: what follows `sf_` in it, and `keys list` shows.")],
    data_dir: DataDir = None,
    keys_file: KeysFile = None,
) -> None:
    """Take a key away from whoever has it."""
    with told():
        known = _keys(data_dir, keys_file).revoke(key_id)
    if not known:
        raise typer.BadParameter(f"there is no key with the id {key_id}", param_hint="KEY_ID")
    say(f"{key_id} is revoked")


def _keys(data_dir: Path | None, keys_file: Path | None) -> KeyFile:
    # What the file logs of itself is told as an error too.
    configure_logging("error", "console")
    return KeyFile(settings_of(data_dir=data_dir, keys_file=keys_file).keys_path)


def _members(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "scope": key.scope.value,
        "galleries": key.galleries,
        "label": key.label,
        "created_at": key.created_at.isoformat(),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }
