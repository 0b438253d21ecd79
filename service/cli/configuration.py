"""Settings of commands that work on the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from service.settings import Settings

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the enrolled galleries; by default that of the settings.")
]
Gallery = Annotated[str | None, typer.Option(help="Name of the gallery; by default that of the settings.")]


def settings_of(**overrides: object) -> Settings:
    """The settings, with those options that were given. Raises typer.BadParameter."""
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from error
