"""`calibrate`, `halve`, `quantise`, `adopt` and `card`: what becomes of an exported student, or of others' networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_training.bench.networks import path_and_preprocessing
from model_training.data.faces import AlignedFaces
from model_training.data.lfw_errata import ALSO_KNOWN_AS
from model_training.shipping.adoption import adopt, describe_adopted
from model_training.shipping.card import write_card
from model_training.shipping.export import ParityError, describe_derived, embed_faces, record_metrics, record_scores
from model_training.shipping.half_precision import halve
from model_training.shipping.quantisation import quantise
from model_training.shipping.scores import measure_scores
from service.contract import ContractError, ImpostorScores, MateScores, Preprocessing, read_manifest

app = typer.Typer()
_console = Console()

_MODELS = Path(__file__).parents[2] / "service" / "models"
_Faces = Annotated[Path, typer.Option(help="Prepared training faces in Name/ folders, of nobody in a test set.")]
_Float32 = Annotated[Path, typer.Option(help="The float32 one.")]


def scores_of(
    model: Path, folder: Path, preprocessing: Preprocessing | None = None
) -> tuple[ImpostorScores, MateScores | None]:
    """A network's scores on prepared faces; `preprocessing` where it is not that of our students."""
    # One person under two names would be counted as two who look alike.
    faces = AlignedFaces.load(folder).without(ALSO_KNOWN_AS)
    source = f"{len(faces.crops)} pictures of {len(set(faces.people()))} people who are in no test set"
    return measure_scores(embed_faces(model, faces, preprocessing=preprocessing), faces.people(), source)


@app.command()
def calibrate(
    impostor_faces: Annotated[Path, typer.Option(help="Prepared faces in Name/ folders, of nobody in a test set.")],
    model: Annotated[Path, typer.Option()] = _MODELS / "student.onnx",
) -> None:
    """Measure a shipped student's impostor and mate scores anew: the ground of the service's thresholds."""
    manifest = record_scores(model, *scores_of(model, impostor_faces))
    write_card(model.parent)
    _console.print(manifest.impostor_scores)


@app.command(name="quantise")
def quantise_model(
    faces: _Faces,
    out: Annotated[Path, typer.Option(help="Where the 8-bit model goes; its manifest beside it.")],
    model: _Float32 = _MODELS / "student.onnx",
    head_in_floats: Annotated[
        bool,
        typer.Option(help="Keep the convolutions after the last stage in floating point: closer, a little slower."),
    ] = True,
) -> None:
    """Write a student in 8-bit integers, with an embedding space and scores of its own."""
    cosine = quantise(model, AlignedFaces.load(faces), out, head_in_floats=head_in_floats)
    impostors, mates = scores_of(out, faces)
    training = {
        **read_manifest(model).training,
        "int8_mean_cosine_to_float32": round(cosine, 5),
        "int8_head_in_floats": head_in_floats,
    }
    manifest = describe_derived(model, out, "int8", impostor_scores=impostors, mate_scores=mates, training=training)
    write_card(out.parent)
    _console.print(f"{out}: {manifest.size_bytes / 1e6:.2f} MB, {manifest.space_id}, mean cosine {cosine:.4f}")


@app.command(name="halve")
def halve_model(
    faces: _Faces,
    out: Annotated[Path, typer.Option(help="Where the 16-bit model goes; its manifest beside it.")],
    model: _Float32 = _MODELS / "student.onnx",
) -> None:
    """Write a student in 16-bit floating point, with an embedding space and scores of its own."""
    try:
        cosine = halve(model, AlignedFaces.load(faces), out)
    except (ParityError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    impostors, mates = scores_of(out, faces)
    training = {**read_manifest(model).training, "float16_least_cosine_to_float32": round(cosine, 7)}
    manifest = describe_derived(model, out, "float16", impostor_scores=impostors, mate_scores=mates, training=training)
    write_card(out.parent)
    _console.print(f"{out}: {manifest.size_bytes / 1e6:.2f} MB, {manifest.space_id}, least cosine {cosine:.6f}")


@app.command(name="adopt")
def adopt_network(
    network: Annotated[str, typer.Argument(help="PATH@raw (RGB in 0..255), PATH@arcface or PATH@MEAN,SCALE.")],
    faces: _Faces,
    out: Annotated[Path, typer.Option(help="Where the network goes; its manifest beside it.")],
    licence: Annotated[str, typer.Option(help="Of the network.")],
    origin: Annotated[str, typer.Option(help="Where it comes from, and what it was trained on.")],
    name: Annotated[str | None, typer.Option(help="That of the file unless given.")] = None,
) -> None:
    """Make an embedding network of others, for aligned faces of 112 x 112, one that the service loads."""
    try:
        path, preprocessing = path_and_preprocessing(network)
        dimension, cosine = adopt(path, preprocessing, out)
    except (ContractError, ParityError) as error:
        raise typer.BadParameter(str(error)) from error
    impostors, mates = scores_of(out, faces, preprocessing)
    manifest = describe_adopted(
        out,
        preprocessing,
        dimension,
        name=name or path.stem,
        licence=licence,
        origin=origin,
        impostors=impostors,
        mates=mates,
    )
    _console.print(f"{out}: {manifest.size_bytes / 1e6:.2f} MB, {manifest.space_id}, least cosine {cosine:.7f}")


@app.command()
def card(
    model: Annotated[Path | None, typer.Option(help="Add figures to this model's manifest first.")] = None,
    metrics: Annotated[str, typer.Option(help="JSON object of measured figures.")] = "{}",
) -> None:
    """Record measured figures in a manifest and write the model card anew."""
    if model is not None:
        record_metrics(model, json.loads(metrics))
    _console.print(str(write_card(model.parent if model is not None else _MODELS)))
