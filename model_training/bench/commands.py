"""`shrinkface bench`: protocols on raw pictures, run through the serving code and the shipped models.

Needs no torch: what it measures is the product, not the training setup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.identification import run_identification
from model_training.bench.serving import serving_embed
from model_training.bench.speed import compare
from model_training.bench.thresholds import RATES, SIZES, draw, thresholds
from model_training.data.pictures import people_in_pairs, pictures_in
from model_training.protocols.embedding import Embed, ProtocolError
from model_training.protocols.open_set import open_set
from model_training.protocols.verification import read_lfw_pairs, verification
from service.calibration import ImpostorCurve
from service.contract import ContractError, read_manifest
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork

app = typer.Typer(help="Measure the shipped models.", no_args_is_help=True)

# Of the people at hand, so that enough are left to be strangers when others fill the gallery.
_MOST_ENROLLED = 2_000


@app.callback()
def main() -> None:
    """Measure the shipped models."""


@app.command(name="verification")
def run_verification(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Pairs file in LFW's format.")],
    embedder: Annotated[Path, typer.Option(help="ONNX network with its manifest.")] = MODELS / "student.onnx",
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """LFW's standard verification protocol: 10-fold accuracy and TAR at fixed false accept rates."""
    console = Console(stderr=as_json)
    try:
        listed, folds = read_lfw_pairs(pairs, lfw_dir)
        embed = serving_embed(YuNetDetector(detector), OnnxNetwork(embedder, threads=threads))
    except (ProtocolError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error

    def progress(pictures: Iterable[Path]) -> Iterable[Path]:
        return track(list(pictures), description="embedding", console=Console(stderr=True))

    cv2.setNumThreads(1)
    result = verification(listed, folds, embed, progress=progress)
    figures = {
        "pairs": len(listed),
        "pictures": result.pictures,
        "pictures_without_face": len(result.missed),
        "accuracy_percent": round(result.accuracy.mean * 100, 2),
        "accuracy_std_percent": round(result.accuracy.std * 100, 2),
        **{f"tar_at_far_{far:g}_percent": round(tar * 100, 2) for far, tar in result.tar.items()},
    }
    if as_json:
        typer.echo(json.dumps(figures))
        return
    table = Table(title=f"LFW verification: {embedder.name}, {detector.name}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)


app.command(name="identification")(run_identification)


@app.command(name="open-set")
def run_open_set(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Names people who took no part in training.")
    ],
    distractors: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Pictures of others, to fill large galleries.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Gallery faces.")] = "100,1000,3000",
    rates: Annotated[str, typer.Option(help="Target FPIRs.")] = "0.001,0.01,0.1",
    trials: Annotated[int, typer.Option(min=2)] = 30,
    embedder: Annotated[Path, typer.Option(help="ONNX network with its manifest.")] = MODELS / "student.onnx",
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Strangers identified (FPIR) and enrolled people missed (FNIR) at the thresholds that the service would use."""
    try:
        network = OnnxNetwork(embedder, threads=threads)
        embed = serving_embed(YuNetDetector(detector), network)
        wanted_sizes = [int(part) for part in sizes.split(",")]
        wanted_rates = [float(part) for part in rates.split(",")]
    except (ContractError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if network.manifest.impostor_scores is None:
        raise typer.BadParameter(f"the manifest of {embedder} states no impostor scores")
    curve = ImpostorCurve.of(network.manifest.impostor_scores)
    cv2.setNumThreads(1)
    named = people_in_pairs(pairs)
    vectors, names = _embedded([path for path in pictures_in(lfw_dir) if path.parent.name in named], embed)
    others = _embedded(pictures_in(distractors), embed)[0] if distractors is not None else None
    table = Table(
        "gallery", "people enrolled", "FPIR asked", "observed", "95 % of trials", "FNIR", "threshold", "strangers",
        title=f"Open-set identification: {embedder.name}, {detector.name}, {trials} trials",
    )  # fmt: skip
    for size in wanted_sizes:
        enrolled = min(size, _MOST_ENROLLED) if others is not None else size
        for rate in wanted_rates:
            try:
                (figure,) = open_set(
                    vectors, names, curve.threshold, size=size, rates=[rate], distractors=others, enrolled=enrolled,
                    trials=trials,
                )  # fmt: skip
            except ValueError as error:
                table.add_row(str(size), str(enrolled), f"{rate:g}", str(error))
                continue
            low, high = figure.interval
            table.add_row(
                f"{size}", f"{enrolled}", f"{rate:g}", f"{figure.observed:.5f}", f"{low:.5f} to {high:.5f}",
                f"{figure.missed:.4f}", f"{figure.threshold:.3f}", f"{figure.strangers}",
            )  # fmt: skip
    Console().print(table)


@app.command(name="speed")
def run_speed(
    models: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="ONNX networks.")],
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each network gets.")] = 15,
) -> None:
    """Faces a second in onnxruntime, networks taking turns; ratios to the first."""
    table = Table("network", "MB", "threads", "batch", "faces/s", "ratio")
    found = compare(models, rounds=rounds)
    for speed in found:
        first = next(other for other in found if (other.threads, other.batch) == (speed.threads, speed.batch))
        table.add_row(
            speed.model.name, f"{speed.model.stat().st_size / 1e6:.2f}", str(speed.threads), str(speed.batch),
            f"{speed.faces_per_second:,.0f}", f"{speed.faces_per_second / first.faces_per_second:.2f}",
        )  # fmt: skip
    Console().print(table)


def _embedded(paths: list[Path], embed: Embed) -> tuple[NDArray[np.float32], list[str]]:
    """Embeddings of the pictures that show a face, and the folder that each lay in."""
    found = [
        (embed(path), path.parent.name) for path in track(paths, description="embedding", console=Console(stderr=True))
    ]
    shown = [(vector, name) for vector, name in found if vector is not None]
    if not shown:
        raise typer.BadParameter("no picture shows a face")
    return np.stack([vector for vector, _ in shown]), [name for _, name in shown]


@app.command("thresholds")
def show_thresholds(
    embedder: Annotated[Path, typer.Option(help="ONNX network with its manifest.")] = MODELS / "student.onnx",
    plot: Annotated[Path | None, typer.Option(help="Picture of rate over threshold to write, .svg or .png.")] = None,
) -> None:
    """The thresholds that `/identify` chooses, by gallery size and target FPIR."""
    try:
        scores = read_manifest(embedder).impostor_scores
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    if scores is None:
        raise typer.BadParameter(f"the manifest of {embedder} states no impostor scores")
    curve = ImpostorCurve.of(scores)
    table = Table("faces", *(f"FPIR {rate:.1%}" for rate in RATES))
    found = {(each.size, each.fpir): each.similarity for each in thresholds(curve)}
    for size in SIZES:
        table.add_row(f"{size:,}", *(f"{found[size, rate]:.3f}" for rate in RATES))
    Console().print(table)
    if plot is not None:
        draw(curve, plot)
