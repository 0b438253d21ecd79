"""What several commands share."""

from pathlib import Path
from typing import Annotated

import typer

MODELS = Path(__file__).parents[2] / "service" / "models"
KeepErrors = Annotated[
    bool, typer.Option("--keep-errors", help="Keep the pictures that LFW has under a second or a wrong name.")
]
