"""`bench templates`: IJB-B and IJB-C, 1:1 and 1:N."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.networks import open_networks
from model_training.bench.serving import detected, embedded_by
from model_training.bench.tables import show, span
from model_training.protocols.embedding import Embed, ProtocolError
from model_training.protocols.ijb import Ijb, read_insightface, read_nist
from model_training.protocols.templates import (
    TemplateSearch,
    TemplateVerification,
    search_templates,
    templates,
    verify_templates,
)
from service.contract import ContractError
from service.vision.second_look import open_detector


class Benchmark(StrEnum):
    """Which one."""

    IJBB = "ijbb"
    IJBC = "ijbc"


class Packing(StrEnum):
    """Whose files: NIST's with boxes, or InsightFace's with landmarks."""

    NIST = "nist"
    INSIGHTFACE = "insightface"


def run_templates(
    folder: Annotated[Path, typer.Option("--dir", exists=True, file_okay=False, help="Folder of the benchmark.")],
    benchmark: Annotated[Benchmark, typer.Option()] = Benchmark.IJBC,
    packing: Annotated[Packing, typer.Option(help="Whose files they are.")] = Packing.INSIGHTFACE,
    embedder: Annotated[
        list[str] | None,
        typer.Option(help="ONNX network; PATH@raw, @arcface or @MEAN,SCALE for one without a manifest."),
    ] = None,
    detector: Annotated[Path, typer.Option(help="For boxes; landmarks need none.")] = MODELS / "detector.onnx",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Templates of several pictures each: TAR at fixed FARs, rank-1, and FNIR at fixed FPIRs."""
    try:
        listed = (read_nist if packing is Packing.NIST else read_insightface)(folder, benchmark.value)
        compared = open_networks(embedder, threads=threads)
        cropper = detected(open_detector(detector))
        faces = list(dict.fromkeys(listed.listed.faces))
        embeds = embedded_by([each.network for each in compared], cropper, faces)
        found = {each.name: _measured(listed, embed) for each, embed in zip(compared, embeds, strict=True)}
    except (ProtocolError, ContractError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        typer.echo(
            json.dumps(
                {
                    name: {
                        "missed": missed,
                        "verification": asdict(one),
                        "search": {key: asdict(each) for key, each in many.items()},
                    }
                    for name, (missed, one, many) in found.items()
                }
            )
        )
        return
    table = Table("figure", *found, title=f"{benchmark.value.upper()}, {packing.value}'s files")
    rows = {name: _rows(*of) for name, of in found.items()}
    for figure in next(iter(rows.values())):
        table.add_row(figure, *(of[figure] for of in rows.values()))
    show(table)


def _measured(listed: Ijb, embed: Embed) -> tuple[int, TemplateVerification, dict[str, TemplateSearch]]:
    made = templates(listed.listed, embed)
    return (
        made.missed,
        verify_templates(made, listed.first, listed.second, listed.same),
        {name: search_templates(made, gallery, listed.probes) for name, gallery in listed.galleries.items()},
    )


def _rows(missed: int, one: TemplateVerification, many: dict[str, TemplateSearch]) -> dict[str, str]:
    rows = {
        "faces not found": f"{missed:,}",
        "1:1 comparisons": f"{one.mates:,} of one person, {one.impostors:,} of two",
        **{f"TAR at FAR {far:g} (95 %)": span(tar, one.intervals[far]) for far, tar in one.tar.items()},
    }
    for name, found in many.items():
        rows[f"{name}: probes"] = f"{found.mated:,} mated, {found.strangers:,} strangers"
        rows[f"{name}: rank-1 (95 %)"] = span(found.cmc[0], found.intervals[0.0])
        rows[f"{name}: among the first 5, 10"] = f"{found.cmc[4]:.2%}, {found.cmc[9]:.2%}"
        for fpir, fnir in found.fnir.items():
            rows[f"{name}: FNIR at FPIR {fpir:g} (95 %)"] = span(fnir, found.intervals[fpir])
    return rows
