"""What a model's impostor scores make of target rates: thresholds by gallery size, as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.calibration import ImpostorCurve

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
