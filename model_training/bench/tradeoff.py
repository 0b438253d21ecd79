"""`bench tradeoff`: what accuracy costs in milliseconds and megabytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.drawing import Axis, Mark, draw_marks
from model_training.bench.networks import open_networks
from model_training.bench.serving import detected, embedded_by
from model_training.bench.speed import compare
from model_training.bench.tables import show, span
from model_training.protocols.bootstrap import Interval
from model_training.protocols.embedding import ProtocolError
from model_training.protocols.pairs import read_lfw_pairs
from model_training.protocols.verification import verification
from service.contract import ContractError
from service.vision.second_look import open_detector


@dataclass(frozen=True)
class TradeOff:
    """One network.

    Attributes:
        accuracy: over the folds.
        interval: 95 %, of drawing people again.
        face_ms: of one face alone, on one thread.
        busy_face_ms: of each face of eight together, on two threads.
        megabytes: of the file.
    """

    name: str
    accuracy: float
    interval: Interval
    face_ms: float
    busy_face_ms: float
    megabytes: float


def run_tradeoff(
    embedder: Annotated[
        list[str], typer.Argument(help="ONNX networks; PATH@raw, @arcface or @MEAN,SCALE without a manifest.")
    ],
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Pairs file in LFW's format.")],
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each network gets.")] = 15,
    plot: Annotated[Path | None, typer.Option(help="Picture to write, .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """LFW accuracy against milliseconds a face and megabytes, networks side by side."""
    try:
        listed = read_lfw_pairs(pairs, lfw_dir)
        compared = open_networks(embedder, threads=2)
        cropper = detected(open_detector(detector))
        embeds = embedded_by([each.network for each in compared], cropper, listed.pictures)
    except (ProtocolError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error
    results = [verification(listed, embed) for embed in embeds]
    speeds = {(each.model, each.threads): each for each in compare([each.path for each in compared], rounds=rounds)}
    found = [
        TradeOff(
            name=each.name,
            accuracy=result.accuracy.mean,
            interval=result.accuracy_interval,
            face_ms=1e3 / speeds[each.path, 1].faces_per_second,
            busy_face_ms=1e3 / speeds[each.path, 2].faces_per_second,
            megabytes=each.path.stat().st_size / 1e6,
        )
        for each, result in zip(compared, results, strict=True)
    ]
    if plot is not None:
        _draw(found, plot)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    table = Table("network", "LFW accuracy (95 %)", "ms a face, 1 thread", "ms a face, 2 threads, 8 faces", "MB")
    for each in found:
        table.add_row(
            each.name, span(each.accuracy, each.interval), f"{each.face_ms:.2f}", f"{each.busy_face_ms:.2f}",
            f"{each.megabytes:.2f}",
        )  # fmt: skip
    show(table)


def _draw(found: list[TradeOff], target: Path) -> None:
    panels = []
    for label, cost in (
        ("ms a face, one thread", lambda each: each.face_ms),
        ("MB", lambda each: each.megabytes),
    ):
        marks = [
            Mark(each.name, cost(each), 100 * each.accuracy, (100 * each.interval.low, 100 * each.interval.high))
            for each in found
        ]
        panels.append((Axis(label, "LFW accuracy, %"), marks))
    draw_marks(panels, target)
