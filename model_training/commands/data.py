"""`prepare` and `check-overlap`: data sets to aligned faces that may train."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model_training.data.alignment import Alignment
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.overlap import HASH_BITS, Limits, find_overlaps
from model_training.data.pictures import people_in_pairs, person_of
from model_training.data.preparing import prepare_faces
from model_training.data.sources import Format, open_source
from model_training.teachers.networks import OnnxTeacher, PixelFormat
from service.contract import ContractError, Preprocessing, read_manifest

app = typer.Typer()
_console = Console()

_LIMITS = Limits()
_MOST_ROWS = 100
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


@app.command(name="check-overlap")
def check_overlap(
    faces: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Training faces, made by `prepare`.")],
    test_faces: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Test faces, made by `prepare`.")],
    pairs: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Only who is in this pairs file counts as a test face."),
    ] = None,
    model: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="ONNX network that compares; with or without manifest.")
    ] = _MODELS / "student.onnx",
    cosine: Annotated[float, typer.Option(min=0, max=1, help="From here on two faces are one.")] = _LIMITS.cosine,
    bits: Annotated[
        int, typer.Option(min=0, max=HASH_BITS, help="Perceptual hashes of one picture differ in at most so many.")
    ] = _LIMITS.bits,
    report: Annotated[Path | None, typer.Option(help="CSV of all that were found.")] = None,
    drop: Annotated[Path | None, typer.Option(help="Write the training faces without them to this folder.")] = None,
) -> None:
    """Find training faces that are in a test set under any name. Ends with 1 where there are and none are dropped."""
    try:
        train, test = AlignedFaces.load(faces), AlignedFaces.load(test_faces)
        names: frozenset[str] = frozenset()
        if pairs is not None:
            names = frozenset(people_in_pairs(pairs))
            test = test.only([row for row, source in enumerate(test.sources) if person_of(source) in names])
        found = find_overlaps(train, test, _network(model), Limits(cosine, bits), names)
        if drop is not None:
            dropped = {overlap.row for overlap in found}
            train.save(drop, [row for row in range(len(train.sources)) if row not in dropped])
    except (DataError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error
    table = Table("training face", "test face", "cosine", f"bits of {HASH_BITS}", "found by")
    rows = [
        (o.source, o.test_source, f"{o.cosine:.3f}", str(o.differing_bits), " ".join(o.reasons))
        for o in sorted(found, key=lambda o: -o.cosine)
    ]
    for row in rows[:_MOST_ROWS]:
        table.add_row(*row)
    if rows:
        _console.print(table)
    if report is not None:
        with report.open("w", newline="") as stream:
            csv.writer(stream).writerows([("face", "test_face", "cosine", "differing_bits", "found_by"), *rows])
    _console.print(f"{len(found)} of {len(train.sources)} training faces are among {len(test.sources)} test faces")
    if drop is not None:
        _console.print(f"the other {len(train.sources) - len(found)} are in {drop}")
    elif found:
        raise typer.Exit(1)


def _network(model: Path) -> OnnxTeacher:
    """A shipped network as its manifest says, and one without as the service would read it."""
    preprocessing = read_manifest(model).preprocessing if model.with_suffix(".json").exists() else None
    preprocessing = preprocessing or Preprocessing()
    return OnnxTeacher(model, PixelFormat(preprocessing.mean, preprocessing.scale))
