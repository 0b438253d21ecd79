"""Pictures of figures: lines with bands, and marks with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Axis(NamedTuple):
    """What a panel shows."""

    x: str
    y: str
    x_log: bool = False


@dataclass(frozen=True)
class Line:
    """Points joined up, with an interval around each; lines of one `colour` belong together."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A point with its name and the interval of its height."""

    label: str
    x: float
    y: float
    interval: tuple[float, float]


def draw_lines(panels: Sequence[tuple[Axis, Sequence[Line]]], target: Path) -> None:
    """Panels side by side. The suffix decides the format."""
    figure, all_axes = _panels(len(panels))
    for axes, (axis, lines) in zip(all_axes, panels, strict=True):
        for line in lines:
            if not line.x:
                continue
            style = {"color": f"C{line.colour}", "linestyle": "--" if line.dashed else "-"}
            axes.plot(line.x, line.y, marker="o", markersize=3, linewidth=1.2, label=line.label, **style)
            lows, highs = zip(*line.band, strict=True)
            axes.fill_between(line.x, lows, highs, color=f"C{line.colour}", alpha=0.12, linewidth=0)
        _finish(axes, axis)
    all_axes[0].legend(frameon=False, fontsize="small")
    _save(figure, target)


def draw_marks(panels: Sequence[tuple[Axis, Sequence[Mark]]], target: Path) -> None:
    """Panels side by side, a mark a network in each. The suffix decides the format."""
    figure, all_axes = _panels(len(panels))
    for axes, (axis, marks) in zip(all_axes, panels, strict=True):
        for number, mark in enumerate(marks):
            low, high = mark.interval
            axes.errorbar(
                mark.x, mark.y, yerr=[[mark.y - low], [high - mark.y]], marker="o", color=f"C{number}", capsize=3
            )
            # Names of marks on the right stand on their left, or they would run out of the picture.
            right = mark.x > (min(each.x for each in marks) + max(each.x for each in marks)) / 2
            axes.annotate(
                mark.label, (mark.x, mark.y), textcoords="offset points", fontsize="small",
                xytext=(-7 if right else 7, 4), ha="right" if right else "left",
            )  # fmt: skip
        axes.margins(x=0.15)
        _finish(axes, axis)
    _save(figure, target)


def _panels(count: int) -> tuple[Any, Any]:
    # Imported here: only pictures need it.
    from matplotlib import use  # noqa: PLC0415

    use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, all_axes = plt.subplots(1, count, figsize=(4.6 * count, 3.8), layout="constrained", squeeze=False)
    return figure, all_axes[0]


def _finish(axes: Any, axis: Axis) -> None:
    if axis.x_log:
        axes.set_xscale("log")
    axes.set(xlabel=axis.x, ylabel=axis.y)
    axes.grid(visible=True, which="major", color="0.9")


def _save(figure: Any, target: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    plt.close(figure)
