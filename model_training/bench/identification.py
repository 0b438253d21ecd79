"""`bench identification`: who is found among ever more distractors, for several networks side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.drawing import Axis, Line, draw_lines
from model_training.bench.networks import Compared, open_network
from model_training.bench.serving import embedded_by
from model_training.data.pictures import people_in_pairs, pictures_in
from model_training.protocols.density import fitted
from model_training.protocols.distractors import PictureDistractors, SampledDistractors
from model_training.protocols.embedding import Embedded, ProtocolError, Vectors
from model_training.protocols.identification import FPIR, IdentificationFigure, identification
from model_training.protocols.metrics import TooFewImpostors
from service.contract import ContractError
from service.vision.detection import YuNetDetector


def run_identification(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="Names the people to look for, who took no part in training."),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="ONNX network; PATH@raw, @arcface or @MEAN,SCALE for one without a manifest."),
    ] = None,
    distractors: Annotated[str, typer.Option(help="Faces besides the mate.")] = "10,100,1000,10000,100000,1000000",
    pictures: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="More pictures of others, beside the people nobody names."),
    ] = None,
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    plot: Annotated[Path | None, typer.Option(help="Picture to write, .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Rank-1 and FNIR at an FPIR of 1 % by number of distractors, as MegaFace asks, with intervals by person.

    Real distractors are pictures of people whom the pairs file does not name, one of each, and of the folders given.
    Sampled ones come from a density fitted to the embeddings that the same network gives of the people looked for.
    """
    try:
        sizes = sorted(int(part) for part in distractors.split(","))
        compared = [open_network(each, threads=threads) for each in model or [str(MODELS / "student.onnx")]]
        found = YuNetDetector(detector)
    except (ContractError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    people, others = _people(lfw_dir, people_in_pairs(pairs))
    for folder in pictures or []:
        others += pictures_in(folder)
    wanted = [picture for theirs in people.values() for picture in theirs] + others
    embeds = embedded_by([each.network for each in compared], found, wanted)
    figures: dict[str, list[IdentificationFigure]] = {}
    for each, embed in zip(compared, embeds, strict=True):
        real = _shown([embed(picture) for picture in others])
        try:
            figures[each.name] = [
                *identification(people, embed, lambda _, real=real: PictureDistractors(real), [*sizes, len(real)]),
                *identification(people, embed, lambda embedded: _sampled(embedded, sizes[-1]), sizes),
            ]
        except (ProtocolError, TooFewImpostors) as error:
            raise typer.BadParameter(str(error)) from error
    if plot is not None:
        _draw(figures, plot)
    if as_json:
        typer.echo(json.dumps({name: [asdict(figure) for figure in each] for name, each in figures.items()}))
        return
    Console().print(_table(figures, people, compared))


def _people(lfw_dir: Path, named: set[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Pictures of the people named, and the first picture of everybody else."""
    of: dict[str, list[Path]] = {}
    for picture in pictures_in(lfw_dir):
        of.setdefault(picture.parent.name, []).append(picture)
    people = {name: pictures for name, pictures in of.items() if name in named}
    return people, [pictures[0] for name, pictures in of.items() if name not in named]


def _shown(found: Sequence[Vectors | None]) -> Vectors:
    vectors = [vector for vector in found if vector is not None]
    return np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)


def _sampled(embedded: Embedded, most: int) -> SampledDistractors:
    return SampledDistractors(fitted(embedded.vectors, embedded.labels), most)


def _table(
    figures: dict[str, list[IdentificationFigure]], people: dict[str, list[Path]], compared: Sequence[Compared]
) -> Table:
    enrolled = sum(len(pictures) > 1 for pictures in people.values())
    table = Table(
        "network", "distractors", "they are", "rank-1", "95 %", "among 10", f"FNIR at FPIR {FPIR:.0%}", "95 %",
        title=f"Identification: {enrolled:,} people enrolled, {len(people) - enrolled:,} strangers, "
        + ", ".join(each.path.name for each in compared),
    )  # fmt: skip
    for name, each in figures.items():
        for figure in each:
            table.add_row(
                name, f"{figure.distractors:,}", figure.kind,
                f"{figure.rank_one:.2%}", _span(figure.rank_one_interval), f"{figure.cmc[9]:.2%}",
                f"{figure.fnir:.2%}", _span(figure.fnir_interval),
            )  # fmt: skip
    return table


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def _draw(figures: dict[str, list[IdentificationFigure]], target: Path) -> None:
    panels: list[tuple[Axis, list[Line]]] = []
    for label, figure_of, interval_of in (
        ("rank-1, %", lambda figure: figure.rank_one, lambda figure: figure.rank_one_interval),
        (f"FNIR at FPIR {FPIR:.0%}, %", lambda figure: figure.fnir, lambda figure: figure.fnir_interval),
    ):
        lines = []
        for number, (name, each) in enumerate(figures.items()):
            for kind, dashed in (("sampled", False), ("pictures", True)):
                shown = sorted(
                    (figure for figure in each if figure.kind == kind), key=lambda figure: figure.distractors
                )
                lines.append(
                    Line(
                        label=f"{name}, {kind}",
                        x=[figure.distractors for figure in shown],
                        y=[100 * figure_of(figure) for figure in shown],
                        band=[(100 * low, 100 * high) for low, high in map(interval_of, shown)],
                        colour=number,
                        dashed=dashed,
                    )
                )
        panels.append((Axis("distractors", label, x_log=True), lines))
    draw_lines(panels, target)
