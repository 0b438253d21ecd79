"""`bench verification`: lists of pairs, and every picture against every other."""

from __future__ import annotations

import json
from collections.abc import Container
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from model_training.bench.defaults import MODELS, KeepErrors
from model_training.bench.networks import open_networks
from model_training.bench.serving import Cropper, already_aligned, detected, embedded_by
from model_training.bench.tables import show
from model_training.data.lfw_errata import ALSO_KNOWN_AS
from model_training.protocols.all_pairs import AllPairs, all_pairs
from model_training.protocols.embedding import Embed, ProtocolError
from model_training.protocols.metrics import TooFewImpostors
from model_training.protocols.pairs import (
    PairList,
    read_annotated_pairs,
    read_cfp_pairs,
    read_lfw_pairs,
    read_packed_pairs,
    read_two_line_pairs,
)
from model_training.protocols.verification import VerificationResult, verification
from service.contract import ContractError
from service.vision.second_look import open_detector


class Layout(StrEnum):
    """How pairs and pictures are handed out."""

    LFW = "lfw"
    CFP_FF = "cfp-ff"
    CFP_FP = "cfp-fp"
    CALFW = "calfw"
    CPLFW = "cplfw"
    AGEDB_30 = "agedb-30"
    BIN = "bin"


def run_verification(
    pairs: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="List of pairs, or a .bin file; CFP needs none.")
    ] = None,
    lfw_dir: Annotated[
        Path | None, typer.Option("--lfw-dir", "--dir", exists=True, file_okay=False, help="Folder of the pictures.")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Whose files they are.")] = Layout.LFW,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Pictures are aligned crops of 112 pixels, as in .bin files.")
    ] = False,
    embedder: Annotated[
        list[str] | None,
        typer.Option(help="ONNX network; PATH@raw, @arcface or @MEAN,SCALE for one without a manifest."),
    ] = None,
    keep_errors: KeepErrors = False,
    detector: Annotated[Path, typer.Option(help="Detector with YuNet's outputs.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """10-fold accuracy, and TAR at false accept rates that the pairs, or all pairs of pictures, support."""
    try:
        listed = _read(layout, pairs, lfw_dir)
        compared = open_networks(embedder, threads=threads)
        cropper: Cropper = already_aligned
        if not aligned and layout is not Layout.BIN:
            cropper = detected(open_detector(detector))
        embeds = embedded_by([each.network for each in compared], cropper, listed.pictures)
    except (ProtocolError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error
    figures = {
        each.name: _figures(
            verification(listed, embed), _everything(listed, embed, without=() if keep_errors else ALSO_KNOWN_AS)
        )
        for each, embed in zip(compared, embeds, strict=True)
    }
    if as_json:
        typer.echo(json.dumps(next(iter(figures.values())) if len(figures) == 1 else figures))
        return
    table = Table("figure", title=f"{layout.value} verification, {'aligned' if aligned else detector.name}")
    for name in figures:
        table.add_column(name, justify="right")
    for figure in next(iter(figures.values())):
        table.add_row(figure, *(str(of[figure]) for of in figures.values()))
    show(table)


def _read(layout: Layout, pairs: Path | None, folder: Path | None) -> PairList:
    if layout in {Layout.CFP_FF, Layout.CFP_FP} and folder is not None:
        return read_cfp_pairs(folder, layout.value[-2:].upper())
    if pairs is not None and layout is Layout.BIN:
        return read_packed_pairs(pairs)
    if pairs is None or folder is None:
        raise ProtocolError(f"{layout.value} needs --pairs{'' if layout is Layout.BIN else ' and --dir'}")
    if layout is Layout.LFW:
        return read_lfw_pairs(pairs, folder)
    return (read_annotated_pairs if layout is Layout.AGEDB_30 else read_two_line_pairs)(pairs, folder)


def _everything(listed: PairList, embed: Embed, *, without: Container[str]) -> AllPairs | None:
    """Every picture of the list against every other, where it says who they are and they are enough."""
    if listed.person is None:
        return None
    shown = [
        (vector, listed.person(picture))
        for picture in listed.pictures
        if picture.name.partition(".")[0] not in without and (vector := embed(picture)) is not None
    ]
    labels = np.unique([name for _, name in shown], return_inverse=True)[1]
    try:
        return all_pairs(np.stack([vector for vector, _ in shown]), labels)
    except (TooFewImpostors, ValueError):
        return None


def _figures(result: VerificationResult, everything: AllPairs | None) -> dict[str, float | list[float]]:
    figures: dict[str, float | list[float]] = {
        "pairs": len(result.scores),
        "pictures": result.pictures,
        "pictures_without_face": len(result.missed),
        "accuracy_percent": _percent(result.accuracy.mean),
        "accuracy_std_percent": _percent(result.accuracy.std),
        "accuracy_interval_percent": [*map(_percent, result.accuracy_interval)],
        **{f"tar_at_far_{far:g}_percent": _percent(tar) for far, tar in result.tar.items()},
    }
    if everything is not None:
        figures["all_pairs_impostors"] = everything.impostors
        figures["all_pairs_mates"] = everything.mates
        for far, rate in everything.rates.items():
            figures[f"all_pairs_tar_at_far_{far:g}_percent"] = _percent(rate.tar)
            figures[f"all_pairs_tar_at_far_{far:g}_interval_percent"] = [*map(_percent, rate.tar_interval)]
            figures[f"by_person_tar_at_far_{far:g}_percent"] = _percent(rate.by_person)
            figures[f"by_person_tar_at_far_{far:g}_interval_percent"] = [*map(_percent, rate.by_person_interval)]
    return figures


def _percent(rate: float) -> float:
    return round(rate * 100, 2)
