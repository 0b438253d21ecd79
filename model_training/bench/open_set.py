"""`bench open-set`: whether strangers are let through as often as was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.table import Table

from model_training.bench.defaults import MODELS, KeepErrors
from model_training.bench.serving import detected, embedded_by
from model_training.bench.tables import show, span
from model_training.data.lfw_errata import ALSO_KNOWN_AS
from model_training.data.pictures import people_and_others, people_in_pairs, pictures_in
from model_training.protocols.embedding import Embedded, Picture, ProtocolError, Vectors, embedded
from model_training.protocols.open_set import OpenSetFigure, open_set
from model_training.shipping.scores import measure_scores
from service.calibration import ImpostorCurve
from service.contract import ContractError, ImpostorScores
from service.vision.embedding import OnnxNetwork
from service.vision.second_look import open_detector

# People who are left to be strangers, where others can fill the gallery instead.
_STRANGERS = 1_000


def run_open_set(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Names people who took no part in training.")
    ],
    distractors: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Pictures of others, to fill large galleries.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Gallery faces, one a person.")] = "100,1000,5000",
    rates: Annotated[str, typer.Option(help="Target FPIRs.")] = "0.001,0.01,0.1",
    trials: Annotated[int, typer.Option(min=2, help="Galleries drawn of each size.")] = 30,
    embedder: Annotated[Path, typer.Option(help="ONNX network with its manifest.")] = MODELS / "student.onnx",
    cross_calibrate: Annotated[
        bool, typer.Option("--cross-calibrate", help="Thresholds from half of the people, strangers of the other half.")
    ] = False,
    keep_errors: KeepErrors = False,
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Strangers identified (FPIR) and enrolled people missed (FNIR) at the thresholds that the service would use.

    Strangers are always people whom the pairs file names. Where a gallery would leave fewer than a thousand of them, it
    is filled up with people whom it does not name, one picture each, and then with the distractors given. `lookalikes`
    are the pairs of people at hand that would be taken for one at the rate asked: under ten of them decide little.
    """
    try:
        network = OnnxNetwork(embedder, threads=threads)
        cropper = detected(open_detector(detector))
        wanted_sizes = [int(part) for part in sizes.split(",")]
        wanted_rates = [float(part) for part in rates.split(",")]
    except (ContractError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    scores = network.manifest.impostor_scores
    if scores is None and not cross_calibrate:
        raise typer.BadParameter(f"the manifest of {embedder} states no impostor scores")
    people, others = people_and_others(lfw_dir, people_in_pairs(pairs), without=() if keep_errors else ALSO_KNOWN_AS)
    filling: list[Picture] = [*others, *(pictures_in(distractors) if distractors is not None else [])]
    try:
        (embed,) = embedded_by([network], cropper, [*(one for theirs in people.values() for one in theirs), *filling])
        found = embedded(people, embed)
    except (ContractError, ProtocolError) as error:
        raise typer.BadParameter(str(error)) from error
    filler = _filler([vector for picture in filling if (vector := embed(picture)) is not None], found.vectors)
    try:
        judged = (
            list(halves(found, filler)) if cross_calibrate else [Judged(found.vectors, found.names, filler, scores)]
        )
    except ValueError as error:
        raise typer.BadParameter(f"half of these people calibrate no thresholds: {error}") from error
    lines = [line for each in judged for line in _lines(each, wanted_sizes, wanted_rates, trials)]
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {"size": size, "asked": rate, "refused": each} if isinstance(each, str) else asdict(each)
                    for size, _, rate, each in lines
                ]
            )
        )
        return
    table = Table(
        "gallery", "of them others", "FPIR asked", "observed (95 %)", "observed / asked", "FNIR (95 %)", "threshold",
        "strangers a trial", "different ones", "lookalikes",
        title=f"Open-set identification: {embedder.name}, {detector.name}, {trials} galleries of each size"
        + (", calibrated on the other half" if cross_calibrate else ""),
    )  # fmt: skip
    for size, filled, rate, outcome in lines:
        table.add_row(f"{size:,}", f"{filled:,}", f"{rate:.1%}", *_cells(outcome))
    show(table)


class Judged(NamedTuple):
    """People, fillers of the gallery, and the impostor scores that thresholds come from."""

    vectors: Vectors
    names: Sequence[str]
    filler: Vectors
    scores: ImpostorScores


def halves(found: Embedded, filler: Vectors) -> Iterator[Judged]:
    """Each half of the people judged by what the other half and the fillers, a picture of each, say of strangers."""
    people = np.unique(found.names)
    order = np.random.default_rng(0).permutation(len(people))
    for half in (order[::2], order[1::2]):
        inside = np.isin(found.labels, half)
        first = np.unique(found.labels[~inside], return_index=True)[1]
        known = np.concatenate([found.vectors[~inside][first], filler])
        scores, _ = measure_scores(known, [str(number) for number in range(len(known))], "the other half")
        yield Judged(found.vectors[inside], [people[label] for label in found.labels[inside]], known, scores)


def _lines(
    judged: Judged, sizes: Sequence[int], rates: Sequence[float], trials: int
) -> Iterator[tuple[int, int, float, OpenSetFigure | str]]:
    """Size, how many of it are fillers, rate, and what came out or why nothing did."""
    curve = ImpostorCurve.of(judged.scores)
    persons = len(set(judged.names))
    for size in sizes:
        filled = min(len(judged.filler), max(0, size - max(0, persons - _STRANGERS)))
        for rate in rates:
            try:
                (outcome,) = open_set(
                    judged.vectors, judged.names, curve.threshold, size=size, rates=[rate], distractors=judged.filler,
                    enrolled=size - filled, trials=trials,
                )  # fmt: skip
            except ValueError as error:
                yield size, filled, rate, str(error)
            else:
                yield size, filled, rate, outcome


def _filler(vectors: list[Vectors], like: Vectors) -> Vectors:
    return np.stack(vectors) if vectors else np.empty((0, like.shape[1]), dtype=np.float32)


def _cells(figure: OpenSetFigure | str) -> list[str]:
    if isinstance(figure, str):
        return [figure]
    low, high = (bound / figure.asked for bound in figure.interval)
    return [
        span(figure.observed, figure.interval, 3),
        f"{figure.observed / figure.asked:.2f} ({low:.2f} to {high:.2f})",
        span(figure.missed, figure.missed_interval, 1),
        f"{figure.threshold:.3f}",
        f"{figure.strangers:,}",
        f"{figure.different_strangers:,}",
        f"{figure.lookalikes:,.1f}",
    ]
