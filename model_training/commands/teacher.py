"""`train-teacher`: a teacher of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from model_training.backbones.catalogue import make_backbone
from model_training.config import TeacherRecipe
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.people import LabelledFaces, PreparedPeople, RecordedPeople
from model_training.data.recordio import RecordFile
from model_training.training.processes import Peers, best_device, joined
from model_training.training.teacher import BACKBONE, TeacherTrainer

app = typer.Typer()
_console = Console()


@app.command(name="train-teacher")
def train_teacher(
    recipe: Annotated[Path, typer.Option(exists=True, dir_okay=False)],
    run: Annotated[Path, typer.Option(help="Folder of checkpoint and log; an interrupted run goes on.")],
    faces: Annotated[
        list[Path] | None, typer.Option(help="Folders made by `prepare` of pictures in a sub-folder for each person.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="InsightFace .rec of aligned pictures, instead.")
    ] = None,
) -> None:
    """Train a teacher on people that are known; `torchrun` shares the work, and the people, among several processes."""
    try:
        settings = TeacherRecipe.from_toml(recipe)
        known = _known(faces or [], records)
        torch.manual_seed(settings.seed)
        network = make_backbone(settings.backbone, settings.dimension)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    device = best_device()
    with joined(device):
        leads = Peers.here().leads
        trainer = TeacherTrainer(network, known, settings, run, device)
        if trainer.resume() and leads:
            _console.print(f"resuming at step {trainer.step} of {trainer.total_steps}")
        trainer.train()
        if leads:
            separation = trainer.separation()
            told = "no held-out people" if separation is None else f"separation of held-out people {separation:.3f}"
            _console.print(f"{run / BACKBONE}: {trainer.total_steps} steps, {told}")


def _known(faces: list[Path], records: Path | None) -> LabelledFaces:
    if records is not None:
        return RecordedPeople(RecordFile(records))
    if not faces:
        raise DataError("give --faces or --records")
    return PreparedPeople([AlignedFaces.load(folder) for folder in faces])
