"""Options of commands that call a service, over HTTP or within this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import httpx
import typer
from starlette.types import Receive, Scope, Send

from service import bootstrap
from service.api.app import Builder, create_app
from service.cli.configuration import settings_of
from service.cli.rendering import AsJson, told
from service.client import AsyncShrinkFace
from service.settings import Settings
from service.telemetry import configure_logging

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"

ApiKey = Annotated[
    str | None, typer.Option(envvar="SHRINKFACE_API_KEY", show_envvar=True, help="Where the service needs one.")
]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a command's service is.

    Attributes:
        local: settings to serve it within this process with, instead of calling `url`.
        as_json: print JSON lines instead of tables.
    """

    url: str
    api_key: str | None
    local: Settings | None
    as_json: bool

    def run(self, work: Callable[[AsyncShrinkFace], Awaitable[T]]) -> T:
        """Do something with the service. Raises what the client raises, and what a service may when it starts."""

        async def connected() -> T:
            if self.local is None:
                async with AsyncShrinkFace(self.url, self.api_key) as client:
                    return await work(client)
            async with in_process(self.local) as client:
                return await work(client)

        return asyncio.run(connected())


@asynccontextmanager
async def in_process(settings: Settings, builder: Builder = bootstrap.build) -> AsyncIterator[AsyncShrinkFace]:
    """The service within this process, and a client of it.

    Args:
        builder: see `create_app`.

    Raises:
        FolderInUse: another process serves the data folder.
        ContractError, SpaceMismatch, StorageUnusable: it cannot be served.
    """
    app = create_app(settings, builder)
    # What a server does: run the lifespan, and give every request the state that it yields.
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with AsyncShrinkFace("http://in-process", transport=transport, retries=0) as client:
            yield client


def _connection(
    url: Annotated[
        str, typer.Option(envvar="SHRINKFACE_URL", show_envvar=True, help="Where the service is.")
    ] = DEFAULT_URL,
    api_key: ApiKey = None,
    local: Annotated[
        bool, typer.Option("--local", help="Work on the data folder itself, which no service may be serving.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder for --local.")] = None,
    as_json: AsJson = False,
) -> Connection:
    if data_dir is not None and not local:
        raise typer.BadParameter("it goes with --local", param_hint="--data-dir")
    if not local:
        return Connection(url, api_key, None, as_json)
    configure_logging("warning", "console")
    settings = settings_of(data_dir=data_dir, auth="off")
    # Whoever may read the folder needs no leave, and is not held up.
    return Connection(url, api_key, settings.model_copy(update={"rate_limit_per_s": None}), as_json)


def calling(command: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """A command with the options of a connection behind its own; the connection is its first argument."""
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = list(inspect.signature(_connection, eval_str=True).parameters.values())

    def wrapped(**values: Any) -> None:
        connection = _connection(**{option.name: values.pop(option.name) for option in shared})
        run: Any = command
        with told():
            run(connection, **values)

    described: Any = wrapped
    described.__name__, described.__doc__ = command.__name__, command.__doc__
    described.__signature__ = inspect.Signature([*own, *shared])
    described.__annotations__ = {option.name: option.annotation for option in (*own, *shared)}
    return wrapped
