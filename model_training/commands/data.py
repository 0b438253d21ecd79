"""`prepare`: data sets to aligned faces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_training.data.alignment import Alignment
from model_training.data.faces import DataError
from model_training.data.pictures import people_in_pairs
from model_training.data.preparing import prepare_faces
from model_training.data.sources import Format, open_source
from service.contract import ContractError

app = typer.Typer()
_console = Console()

_MODELS = Path(__file__).parents[2] / "service" / "models"


@app.command()
def prepare(
    source: Annotated[
        Path,
        typer.Option(exists=True, help="Folder of pictures, RecordIO file (.rec), WebDataset (.tar, folder of them)."),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="An interrupted run goes on here.")],
    detector: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = _MODELS / "detector.onnx",
    aligned: Annotated[bool, typer.Option("--aligned", help="The pictures are aligned crops already.")] = False,
    form: Annotated[Format, typer.Option("--format", help="Of the source; by default what it looks like.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    exclude_pairs: Annotated[Path | None, typer.Option(help="Leave out everybody whom this pairs file names.")] = None,
) -> None:
    """Align the main face of every picture by the service's contract."""
    names = frozenset(people_in_pairs(exclude_pairs)) if exclude_pairs is not None else frozenset()
    try:
        done = prepare_faces(
            open_source(source, form), out, Alignment(None if aligned else detector), jobs=jobs, exclude=names
        )
    except (DataError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error
    lost = {"excluded": done.excluded, "without a face": done.without_face, "unreadable": done.unreadable}
    left_out = ", ".join(f"{count} {why}" for why, count in lost.items() if count)
    _console.print(f"{done.faces} faces from {done.read} pictures in {out}" + (f" ({left_out})" if left_out else ""))
