"""`bench identification`: who is found among ever more distractors, for several networks side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from model_training.bench.defaults import MODELS, KeepErrors
from model_training.bench.drawing import Axis, Line, draw_lines
from model_training.bench.networks import Compared, open_networks
from model_training.bench.serving import detected, embedded_by
from model_training.bench.tables import show, span
from model_training.data.lfw_errata import ALSO_KNOWN_AS
from model_training.data.pictures import people_and_others, people_in_pairs, pictures_in
from model_training.protocols.density import fitted
from model_training.protocols.distractors import Distractors, NormalDistractors, PictureDistractors, around
from model_training.protocols.embedding import Embedded, ProtocolError, Vectors
from model_training.protocols.identification import FAR, FPIR, IdentificationFigure, identification
from model_training.protocols.metrics import TooFewImpostors
from service.contract import ContractError
from service.vision.second_look import open_detector


class Density(StrEnum):
    """What distractors are drawn from."""

    SMOOTHED = "smoothed"
    NORMAL = "normal"


def run_identification(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="Names the people to look for, who took no part in training."),
    ],
    embedder: Annotated[
        list[str] | None,
        typer.Option(help="ONNX network; PATH@raw, @arcface or @MEAN,SCALE for one without a manifest."),
    ] = None,
    distractors: Annotated[str, typer.Option(help="Faces besides the mate.")] = "10,100,1000,10000,100000,1000000",
    pictures: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="More pictures of others, beside the people nobody names."),
    ] = None,
    density: Annotated[
        Density, typer.Option(help="What distractors beyond the pictures are drawn from.")
    ] = Density.SMOOTHED,
    fpir: Annotated[
        float, typer.Option(min=0.0001, max=0.99, help="Share of strangers who may be let through.")
    ] = FPIR,
    keep_errors: KeepErrors = False,
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    plot: Annotated[Path | None, typer.Option(help="Picture to write, .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Rank-1 and FNIR at an FPIR of 1 % by number of distractors, as MegaFace asks, with intervals by person.

    Real distractors are pictures of people whom the pairs file does not name, one of each, and of the folders given.
    Others are drawn from a density fitted to the embeddings that the same network gives of all these people: smoothed,
    around one real face of each, or normal.
    """
    try:
        sizes = sorted(int(part) for part in distractors.split(","))
        compared = open_networks(embedder, threads=threads)
        cropper = detected(open_detector(detector))
    except (ContractError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    people, others = people_and_others(lfw_dir, people_in_pairs(pairs), without=() if keep_errors else ALSO_KNOWN_AS)
    unnamed = len(others)
    for folder in pictures or []:
        others += pictures_in(folder)
    wanted = [picture for theirs in people.values() for picture in theirs] + others
    try:
        embeds = embedded_by([each.network for each in compared], cropper, wanted)
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    figures: dict[str, list[IdentificationFigure]] = {}
    for each, embed in zip(compared, embeds, strict=True):
        real = _shown([embed(picture) for picture in others])
        of_lfw = _shown([embed(picture) for picture in others[:unnamed]])
        try:
            figures[each.name] = [
                *identification(
                    people,
                    embed,
                    lambda _, real=real: PictureDistractors(real),
                    sorted({*sizes, len(real)} - {0}),
                    fpir=fpir,
                ),
                *identification(
                    people,
                    embed,
                    lambda found, of_lfw=of_lfw: _sampled(found, of_lfw, density, sizes[-1]),
                    sizes,
                    fpir=fpir,
                ),
            ]
        except (ProtocolError, TooFewImpostors) as error:
            raise typer.BadParameter(str(error)) from error
    if plot is not None:
        _draw(figures, density, fpir, plot)
    if as_json:
        typer.echo(json.dumps({name: [asdict(figure) for figure in each] for name, each in figures.items()}))
        return
    show(_table(figures, people, compared, fpir))


def _shown(found: Sequence[Vectors | None]) -> Vectors:
    vectors = [vector for vector in found if vector is not None]
    return np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)


def _sampled(found: Embedded, others: Vectors, density: Density, most: int) -> Distractors:
    if density is Density.NORMAL:
        return NormalDistractors(fitted(found.vectors, found.labels), most)
    return around(found, others, most)


def _table(
    figures: dict[str, list[IdentificationFigure]],
    people: dict[str, list[Path]],
    compared: Sequence[Compared],
    fpir: float,
) -> Table:
    enrolled = sum(len(pictures) > 1 for pictures in people.values())
    table = Table(
        "network", "distractors", "they are", "rank-1 (95 %)", "among the first 10",
        f"FNIR at FPIR {fpir:.1%} (95 %)", f"TAR at FAR {FAR:g} (95 %)",
        title=f"Identification: {enrolled:,} people enrolled, {len(people) - enrolled:,} strangers, "
        + ", ".join(each.path.name for each in compared),
    )  # fmt: skip
    for name, each in figures.items():
        for figure in each:
            table.add_row(
                name, f"{figure.distractors:,}", figure.kind,
                span(figure.rank_one, figure.rank_one_interval), f"{figure.cmc[9]:.2%}",
                span(figure.fnir, figure.fnir_interval),
                "" if figure.tar is None or figure.tar_interval is None else span(figure.tar, figure.tar_interval),
            )  # fmt: skip
    return table


def _draw(figures: dict[str, list[IdentificationFigure]], density: Density, fpir: float, target: Path) -> None:
    panels: list[tuple[Axis, list[Line]]] = []
    for label, figure_of, interval_of in (
        ("rank-1, %", lambda figure: figure.rank_one, lambda figure: figure.rank_one_interval),
        (f"FNIR at FPIR {fpir:.1%}, %", lambda figure: figure.fnir, lambda figure: figure.fnir_interval),
    ):
        lines = []
        for number, (name, each) in enumerate(figures.items()):
            for kind, dashed in ((density.value, False), ("pictures", True)):
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
