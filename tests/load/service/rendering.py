"""Records as a markdown table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.load.service.summary import CURVE, disturbed, wrong

Record = dict[str, Any]

# Redis and the rest of a quiet machine need about so much.
_QUIET_CORES = 0.25

_HEAD = (
    "| load | requests/s | p50, p95, p99, p99.9, ms | errors | strangers identified, others' names "
    "| service, cores | RSS, MiB | cache hits: pictures, faces | faces a run | same as exact |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
_ANSWERS = (
    "| load | enrolled: identified | first, under the threshold | not first | another's name "
    "| strangers: unknown | identified | no face found |\n|---|---|---|---|---|---|---|---|"
)


def tables(records: list[Record]) -> str:
    """Markdown: a row for each scenario, twice: how fast, and what was answered; then the stages."""
    speed = "\n".join([_HEAD, *(_row(record) for record in records)])
    answers = "\n".join([_ANSWERS, *(_answers(record) for record in records)])
    return "\n\n".join(part for part in (speed, disturbances(records), answers, _stages(records)) if part)


def disturbances(records: list[Record]) -> str:
    """Which records cannot be relied on, since others had too much of the machine."""
    seen = {name(record): disturbed(record) for record in records if "usage" in record}
    told = ", ".join(f"{who} {cores:.1f}" for who, cores in seen.items() if cores > _QUIET_CORES)
    return f"**Something else ran on the machine, in cores: {told}; measure again.**" if told else ""


def name(record: Record) -> str:
    """Of a scenario, or of a service that was compared."""
    return str(record.get("title", record["scenario"]["name"]))


def _row(record: Record) -> str:
    latency = record["latency_ms"].get("identify", {})
    figures = ", ".join(f"{latency[p]:,.1f}" for p in ("p50", "p95", "p99", "p99.9")) if latency else "-"
    errors = ", ".join(f"{count} x {what}" for what, count in sorted(record["errors"].items())) or "0"
    usage, service = record["usage"], record.get("service", {})
    memory = f"{usage['resident_mib'][-1]:,.0f}" if usage else "-"
    if (growth := usage.get("resident_growth_percent")) is not None:
        memory += f" ({growth:+.2f} % after the first minute)"
    agreement = service.get("agreement_with_exact")
    return (
        f"| {record['scenario']['described']} | {record['requests_per_s']:,.1f} | {figures} | {errors} "
        f"| {wrong(record)} "
        f"| {usage.get('cores', '-')} | {memory} "
        f"| {_hits(service, 'picture_lookups')}, {_hits(service, 'cache_lookups')} | {_batch(service)} "
        f"| {'-' if agreement is None else format(agreement, '.4f')} |"
    )


def _hits(service: Record, of: str) -> str:
    lookups = service.get(of, {})
    every = sum(lookups.values())
    hits = sum(count for outcome, count in lookups.items() if "hit" in outcome)
    return f"{100 * hits / every:.1f} %" if every else "-"


def _batch(service: Record) -> str:
    mean = service.get("batches", {}).get("mean")
    return "-" if mean is None else f"{mean:.2f}"


def _answers(record: Record) -> str:
    kinds = (
        "identified",
        "missed, though first",
        "missed",
        "swapped",
        "stranger rejected",
        "stranger identified",
        "no face",
    )
    counts = " | ".join(f"{record['answers'].get(kind, 0):,}" for kind in kinds)
    return f"| {record['scenario']['name']} | {counts} |"


def _stages(records: list[Record]) -> str:
    stages = sorted({stage for record in records for stage in record.get("service", {}).get("stages_ms", {})})
    if not stages:
        return ""
    lines = [f"| mean of a stage, ms | {' | '.join(stages)} |", "|---" * (len(stages) + 1) + "|"]
    for record in records:
        taken = record.get("service", {}).get("stages_ms", {})
        cells = " | ".join(f"{taken[stage]:.2f}" if stage in taken else "-" for stage in stages)
        lines.append(f"| {record['scenario']['name']} | {cells} |")
    return "\n".join(lines)


def plot(records: list[Record], path: Path) -> None:
    """Left: latency against percentile; right: memory and processor over the longest scenario."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (curves, memory) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    for record in records:
        if record["curve_ms"]:
            curves.plot(100 - CURVE, record["curve_ms"], label=record["scenario"]["name"])
    curves.set_xscale("log")
    curves.invert_xaxis()
    curves.set_yscale("log")
    curves.set_xticks([100, 50, 10, 1, 0.1, 0.01], ["0", "50", "90", "99", "99.9", "99.99"])
    curves.set_xlabel("percentile of identifications")
    curves.set_ylabel("latency, ms")
    curves.grid(visible=True, which="major", alpha=0.3)
    curves.legend(frameon=False)
    longest = max(records, key=lambda record: record["seconds"])
    if usage := longest["usage"]:
        minutes = [second / 60 for second in usage["seconds"]]
        memory.plot(minutes, usage["resident_mib"], label="resident")
        memory.plot(minutes, usage["anonymous_mib"], label="without pages of files")
        memory.set_ylim(0)
        memory.set_xlabel(f"minutes of {longest['scenario']['name']}")
        memory.set_ylabel("memory of the service, MiB")
        memory.grid(visible=True, alpha=0.3)
        memory.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)
