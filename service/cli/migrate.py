"""`shrinkface gallery migrate`: another model for a service that goes on answering."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service import bundled
from service.api.schemas.migration import MigrationOut
from service.cli.connection import DEFAULT_URL, ApiKey
from service.cli.rendering import AsJson, complain, print_json, print_table, say

_POLL_S = 0.5
_TIMEOUT_S = 600.0
_ROUTE = "/v1/migration"


def migrate_gallery(
    model: Annotated[
        Path | None,
        typer.Option(
            help="ONNX file of the new model on the service's machine, its manifest beside it; or the name of one "
            "that comes along."
        ),
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Serve the new model, when it is ready.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Serve the previous model again.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Remove the embeddings that are not served: after a switch, the old ones.")
    ] = False,
    url: Annotated[
        str, typer.Option(envvar="SHRINKFACE_URL", show_envvar=True, help="Where the service is.")
    ] = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Embed all kept faces by another model while the service runs, compare both, and switch when asked to.

    Without an option it shows how far a migration is.
    """
    if back + abandon + (model is not None or switch) > 1:
        raise typer.BadParameter("--back and --abandon go with no other option")
    headers = {"X-API-Key": api_key} if api_key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S) as client:
        if back:
            status = _asked(client, "POST", f"{_ROUTE}/back")
        elif abandon:
            status = _asked(client, "DELETE", _ROUTE)
        else:
            status = _asked(client, "GET", _ROUTE)
            if model is not None:
                status = _followed(client, _asked(client, "POST", _ROUTE, {"model": _named(model)}))
            elif switch:
                status = _followed(client, status)
            _show_agreement(status, as_json=as_json)
            if switch and status.state == "ready":
                status = _asked(client, "POST", f"{_ROUTE}/switch")
    _show(status, as_json=as_json)
    if status.state == "failed" or (switch and status.state != "switched"):
        raise typer.Exit(code=1)


def _named(model: Path) -> str:
    """As the service takes it: a bare name that is no file here is one of its own."""
    return str(model if bundled.is_name(model) else model.absolute())


def _asked(client: httpx.Client, method: str, path: str, body: Any = None) -> MigrationOut:
    try:
        response = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        complain(f"no service answers at {client.base_url} ({error}). Start it first: shrinkface serve")
        raise typer.Exit(code=1) from error
    try:
        content = response.json()
        if response.is_success:
            return MigrationOut.model_validate(content)
        complain(str(content["detail"]))
    except (ValueError, KeyError, TypeError) as error:
        complain(f"{client.base_url} answered {response.status_code}, and not as this service does")
        raise typer.Exit(code=1) from error
    raise typer.Exit(code=1)


def _followed(client: httpx.Client, status: MigrationOut) -> MigrationOut:
    """The status once nothing is under way any more."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("faces", total=None, rate="")
        # For as long as the service says that it is at work.
        while status.state in ("embedding", "comparing"):
            bar.update(
                task,
                description=status.state,
                completed=status.faces_done,
                total=status.faces_total or None,
                rate=f"{status.faces_per_s:,.0f} faces/s",
            )
            time.sleep(_POLL_S)
            status = _asked(client, "GET", _ROUTE)
    return status


def _show_agreement(status: MigrationOut, *, as_json: bool) -> None:
    if as_json or (found := status.agreement) is None:
        return
    say(
        f"{found.compared} faces, mirrored, asked of both models: {found.same:.1%} same person first; "
        f"right before {found.right_before:.1%}, after {found.right_after:.1%}"
    )


def _show(status: MigrationOut, *, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    other = f", beside it {status.other.model} ({status.other.space_id})" if status.other is not None else ""
    say(f"{status.state}: served is {status.active.model} ({status.active.space_id}){other}")
    if status.faces_total:
        say(f"{status.faces_done:,} of {status.faces_total:,} faces looked at, {status.faces_per_s:,.0f} faces/s")
    if status.problem is not None:
        say(status.problem, "red")
    if status.again_persons:
        say(f"{status.again_persons:,} persons have faces that were stored without a crop and cannot be carried over:")
        rows = [
            (each.gallery, each.person_id, each.faces, each.carried, None if each.carried else "enrol again")
            for each in status.again
        ]
        print_table(("gallery", "person", "left behind:", "carried over:", ""), rows)
