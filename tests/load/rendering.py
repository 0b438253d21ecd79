"""Tables and a picture from records of the gallery benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.load.measuring import GOOD_AGREEMENT, disturbed
from tests.load.records import Record
from tests.load.structures import BUILD_EFFORT, LINKS, STRUCTURES

_HEAD = (
    "| structure | p50, ms | p99, ms | p50, p99 on all cores, ms | queries/s, all cores | same first face "
    "| build, s (CPU) | memory, MiB | setting |\n|---|---|---|---|---|---|---|---|---|"
)
# Similarities off by more are no cosines of the vectors that were put in.
_TRUE_SCORE = 1e-5


def gallery_of(record: Record) -> tuple[str, int, int]:
    """Data, dimension and size."""
    return record["data"], record["dimension"], record["size"]


def galleries(records: list[Record]) -> Iterator[tuple[tuple[str, int, int], list[Record]]]:
    """Records by gallery, in the order of structures."""
    order = list(STRUCTURES)
    records = sorted(records, key=lambda record: (gallery_of(record), order.index(record["structure"])))
    for gallery, group in groupby(records, key=gallery_of):
        yield gallery, list(group)


def tables(records: list[Record]) -> str:
    """Markdown: what was measured on what, and a table for each gallery."""
    if not records:
        return "nothing was measured"
    parts = [_machines(records), _versions(records), _explained(records)]
    for (data, dimension, size), group in galleries(records):
        described = next((record["described"] for record in group if "described" in record), data)
        parts.append(f"### {size:,} faces of {dimension} values, {data}\n\n{described[:1].upper()}{described[1:]}.")
        parts.append("\n".join([_HEAD, *(_row(record) for record in group)]))
        parts.append(_notes(group))
    return "\n\n".join(part for part in parts if part)


def _machines(records: list[Record]) -> str:
    seen = {
        f"{here['processor']}, {record['threads']} core(s) used, {here['memory_gib']} GiB, Python {here['python']}"
        for record in records
        for here in [record["machine"]]
    }
    warning = "" if len(seen) == 1 else "\n\n**These records come from different machines or settings.**"
    return "Machine: " + "; ".join(sorted(seen)) + "." + warning


def _versions(records: list[Record]) -> str:
    seen = {(package, version) for record in records for package, version in record.get("versions", {}).items()}
    # Sorted by their text: a version may be None.
    named = sorted(f"{package} {version or 'not installed'}" for package, version in seen)
    return f"Versions: {', '.join(named)}."


def _explained(records: list[Record]) -> str:
    probes = "/".join(str(count) for count in sorted({record["probes"] for record in records}))
    return (
        f"{probes} probes for each figure. p50, p99: one probe at a time, the process on one core, and then on all. "
        "Queries/s: all cores, the better of one batch and of single probes from as many threads. "
        "Same first face: as similar as the exact search's. "
        "Build: seconds, and seconds of all cores together. "
        "Memory: growth of the process while building, vectors included. "
        f"Graphs: M {LINKS}, efConstruction {BUILD_EFFORT} (Milvus Lite: its own). "
        "Setting: the smallest of its ladder that agrees for 99.9 % of other probes, `!` where none did."
    )


def _row(record: Record) -> str:
    title = STRUCTURES[record["structure"]].title
    if record["status"] != "ok":
        why = (
            f"{record['status']}: {record.get('detail', '')}"
            if record["status"] != "not installed"
            else "not installed"
        )
        return f"| {title} | {why.replace('|', '/')} |" + " |" * 7
    together, apart = record["batch_qps"], record["threads_qps"]
    how = "batch" if together >= apart else "threads"
    return (
        f"| {title} | {record['p50_ms']:.3f} | {record['p99_ms']:.3f} | {_lone(record)} "
        f"| {max(together, apart):,.0f} ({how}) | {record['agreement']:.4f} | {_build(record)} "
        f"| {_memory(record)} | {_setting(record)} |"
    )


def _build(record: Record) -> str:
    """Seconds, and of all cores together: the latter also stand where something else ran beside."""
    return f"{record['build_s']:,.1f} ({record['build_s'] * record['build_busy']:,.1f})"


def _resident_mib(record: Record) -> float:
    """Mapped files included: a machine without room for them searches at the speed of its disk."""
    return float(max(record["memory_mib"] + record["file_mib"], 0))


def _memory(record: Record) -> str:
    files = record["file_mib"]
    # A few MiB are libraries that were loaded meanwhile.
    mapped = f" + {files:,.0f} of files" if files > 64 else ""
    return f"{record['memory_mib']:,.0f}{mapped}"


def _setting(record: Record) -> str:
    if record["effort"] is None:
        return ""
    reached = max(record["efforts_tried"].values()) >= GOOD_AGREEMENT
    return f"{record['effort']}{'' if reached else ' !'}"


def _notes(group: list[Record]) -> str:
    done = {record["structure"]: record for record in group if record["status"] == "ok"}
    notes = []
    if "ours" in done and "ours-exact" in done:
        ratio = done["ours-exact"]["p50_ms"] / done["ours"]["p50_ms"]
        notes.append(f"ShrinkFace is {ratio:.1f} times as fast as its own exact search.")
    off = [record for record in done.values() if record["score_error"] > _TRUE_SCORE]
    notes.extend(
        f"{STRUCTURES[record['structure']].title}: similarities are off by up to {record['score_error']:.1e}."
        for record in off
    )
    notes.extend(
        f"**{STRUCTURES[record['structure']].title.replace('*', '')}: something else held the processor "
        f"({' and '.join(disturbed(record))}); measure again.**"
        for record in done.values()
        if disturbed(record)
    )
    short = [record for record in done.values() if record["timed"] < record["probes"]]
    notes.extend(
        f"{STRUCTURES[record['structure']].title}: p50 and p99 of {record['timed']} probes." for record in short
    )
    return " ".join(notes)


def plot(records: list[Record], path: Path) -> None:
    """Speed against agreement, memory as the area of a mark: of each data and dimension the largest gallery that more
    than one structure was measured on.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    done = [record for record in records if record["status"] == "ok"]
    kinds = sorted({(record["data"], record["dimension"]) for record in done})
    if not kinds:
        return
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.5 * len(kinds), 4.8), squeeze=False, layout="constrained")
    colours = plt.get_cmap("tab20").colors
    order = list(STRUCTURES)
    for axis, (data, dimension) in zip(axes[0], kinds, strict=True):
        here = [record for record in done if (record["data"], record["dimension"]) == (data, dimension)]
        measured = Counter(record["size"] for record in here)
        size = max(measured, key=lambda size: (measured[size] > 1, size))
        here = [record for record in here if record["size"] == size]
        most = max(1.0, *(_resident_mib(record) for record in here))
        for record in here:
            missed = 1 - record["agreement"]
            speed = 1e3 / record["p50_ms"]
            colour = colours[order.index(record["structure"]) % len(colours)]
            area = 40 + 500 * _resident_mib(record) / most
            axis.scatter(missed, speed, s=area, color=colour, alpha=0.75, edgecolors="black", linewidths=0.5)
        # One probe is the least that can differ: zero lies one such step beside it.
        step = 1 / max(record["probes"] for record in here)
        axis.set_xscale("symlog", linthresh=step)
        axis.set_xlim(1, -step)
        axis.set_yscale("log")
        axis.set_xlabel("share of probes with another first face than the exact search")
        axis.set_ylabel("searches a second, one probe at a time, one core")
        axis.set_title(f"{size:,} faces of {dimension} values, {data}\nlargest mark: {most:,.0f} MiB", fontsize=10)
        axis.grid(visible=True, which="major", alpha=0.3)
    shown = sorted({record["structure"] for record in done}, key=order.index)
    marks = [
        plt.Line2D([], [], marker="o", linestyle="", color=colours[order.index(name) % len(colours)]) for name in shown
    ]
    titles = [STRUCTURES[name].title.replace("*", "") for name in shown]
    figure.legend(marks, titles, loc="outside lower center", ncols=min(len(shown), 7), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _lone(record: Record) -> str:
    if "lone_p50_ms" not in record:
        return "-"
    return f"{record['lone_p50_ms']:.3f}, {record['lone_p99_ms']:.3f}"
