"""`shrinkface serve` and `shrinkface demo`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer

from service.access import KeyFile
from service.api.server import Server
from service.cli.configuration import settings_of
from service.cli.rendering import told
from service.demo import run_demo
from service.domain import StorageUnusable
from service.settings import Settings
from service.telemetry import configure_logging

_log = structlog.get_logger()


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the enrolled galleries.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console.")] = None,
) -> None:
    """Serve until interrupted; every other setting comes from SHRINKFACE_ variables or .env."""
    settings = settings_of(host=host, port=port, data_dir=data_dir, log_format=log_format)
    configure_logging(settings.log_level, settings.log_format)
    _warn(settings)
    server = Server(settings)
    server.run()
    if not server.started:
        raise typer.Exit(code=1)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the table instead of serving on.")] = False,
    port: Annotated[int, typer.Option(help="Port to try; a free one is taken if it is busy.")] = 8000,
) -> None:
    """Enrol two portraits, identify changed versions of them, and show the outcome."""
    with told():
        passed = run_demo(port=port, once=once)
    raise typer.Exit(code=0 if passed else 1)


def _warn(settings: Settings) -> None:
    """Say in the log when nobody can get in, or everybody can."""
    if settings.auth_required:
        keys = KeyFile(settings.keys_path)
        # A damaged file has been logged by now.
        with suppress(StorageUnusable):
            if not keys.list():
                _log.warning(
                    "callers need an API key and there is none yet, so nobody gets in; make one with: "
                    "shrinkface keys create --scope admin",
                    keys_file=str(settings.keys_path),
                    host=settings.host,
                )
    elif settings.model_copy(update={"auth": "auto"}).auth_required:
        _log.warning(
            "whoever can reach this service may read, change and erase everything in it; "
            "leave SHRINKFACE_AUTH at auto to ask for API keys",
            host=settings.host,
        )
