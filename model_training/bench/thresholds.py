"""What a model's impostor scores make of target rates: thresholds by gallery size, as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.tables import show
from service.calibration import ImpostorCurve
from service.contract import ContractError, read_manifest

RATES = (0.001, 0.01, 0.1)
SIZES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class Threshold(NamedTuple):
    """The least cosine at which a gallery of `size` faces lets no more than `fpir` of the strangers through."""

    size: int
    fpir: float
    similarity: float


def thresholds(curve: ImpostorCurve) -> list[Threshold]:
    """For every size and rate."""
    return [Threshold(size, rate, curve.threshold(rate, size)) for size in SIZES for rate in RATES]


def draw(curve: ImpostorCurve, target: Path) -> None:
    """Draw the rate over the threshold, a line for every other size. The suffix decides the format."""
    # Imported here: only this picture needs it.
    from matplotlib import use  # noqa: PLC0415

    use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    cosines = [step / 200 for step in range(30, 181)]
    for size in SIZES[::2]:
        axes.plot(cosines, [max(curve.fpir(cosine, size), 1e-7) for cosine in cosines], label=f"{size:,} faces")
    axes.axhline(0.01, color="0.6", linewidth=0.8, linestyle="--")
    axes.annotate("1 %", (cosines[-1], 0.01), textcoords="offset points", xytext=(-4, 3), ha="right", color="0.4")
    axes.set(yscale="log", ylim=(1e-5, 1.2), xlabel="threshold (cosine)", ylabel="strangers identified (FPIR)")
    axes.set_xlim(cosines[0], cosines[-1])
    axes.grid(visible=True, which="major", color="0.9")
    axes.legend(title="gallery", frameon=False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    plt.close(figure)


def run_thresholds(
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
    show(table)
    if plot is not None:
        draw(curve, plot)
