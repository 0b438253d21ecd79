"""Figures of a load, from what the callers noted and what the service used."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from tests.load.service.exposition import between
from tests.load.service.processes import Usage
from tests.load.service.scenarios import Scenario

_PERCENTILES = (50, 90, 95, 99, 99.9)
# Memory that is taken in the first minute is the service's working set.
_SETTLED_S = 60.0
_MEDIAN_OF_S = 20.0
CURVE = np.unique(np.concatenate([np.arange(0, 100), 100 - np.logspace(0, -3, 40)]))


def summarised(scenario: Scenario, outcome: dict[str, Any], usage: Usage) -> dict[str, Any]:
    """One scenario's record, ready for JSON.

    Latencies are of all requests that were due, and rates of those answered, between the end of the warm-up and the end
    of the scenario.
    """
    start, end = outcome["counted_from_s"], outcome["counted_to_s"]
    counted = [row for row in outcome["rows"] if start <= row[1] < end]
    good = [row for row in counted if row[3] == "ok"]
    in_time = sum(start <= row[1] + row[2] / 1e3 < end for row in outcome["rows"] if row[3] == "ok")
    by_kind = {kind: [row[2] for row in good if row[0] == kind] for kind in sorted({row[0] for row in counted})}
    identified = np.array(by_kind.get("identify", []))
    record = {
        "scenario": asdict(scenario),
        "seconds": round(end - start, 1),
        "requests": len(counted),
        "requests_by_kind": {kind: sum(row[0] == kind for row in counted) for kind in by_kind},
        "requests_per_s": round(in_time / (end - start), 1),
        "latency_ms": {kind: percentiles(found) for kind, found in by_kind.items() if found},
        "curve_ms": np.percentile(identified, CURVE).round(2).tolist() if len(identified) else [],
        # With those of the warm-up and of the time after: nothing may go wrong at any time.
        "errors": dict(Counter(f"{row[0]}: {row[3]}" for row in outcome["rows"] if row[3] != "ok")),
        "answers": dict(sorted(Counter(row[4] for row in good if row[0] == "identify").items())),
        "generator_late_ms": round(outcome["late_ms"], 1),
        "generator_cores": round(outcome["generator_cpu_s"] / (end - start), 2),
        "usage": used(usage, outcome["began_at"] + start, outcome["began_at"] + end),
    }
    if len(outcome["exposed"]) == 2:
        record["service"] = between(*outcome["exposed"])
    return record


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """By name, p50 to p99.9, and the largest."""
    found = np.percentile(milliseconds, _PERCENTILES)
    named = {f"p{p:g}": round(float(value), 2) for p, value in zip(_PERCENTILES, found, strict=True)}
    return {**named, "max": round(max(milliseconds), 2)}


def used(usage: Usage, start: float, end: float) -> dict[str, Any]:
    """Cores and memory between two times of `time.time`, and growth of memory after the first minute.

    Growth compares the median of 20 s after the first minute with that of the last 20 s.
    """
    at = np.array(usage.at)
    within = (at >= start) & (at <= end)
    if within.sum() < 2:
        return {}
    at, spent, machine = at[within], np.array(usage.cpu_s)[within], np.array(usage.machine_s)[within]
    kinds = {
        "resident": np.array(usage.resident)[within] / 2**20,
        "anonymous": np.array(usage.anonymous)[within] / 2**20,
    }
    found: dict[str, Any] = {
        "cores": round(float((spent[-1] - spent[0]) / (at[-1] - at[0])), 2),
        "machine_cores": round(float((machine[-1] - machine[0]) / (at[-1] - at[0])), 2),
        "seconds": (at - start).round(1).tolist(),
    }
    for kind, mib in kinds.items():
        found[f"{kind}_mib"] = mib.round(1).tolist()
        settled = (at >= start + _SETTLED_S) & (at < start + _SETTLED_S + _MEDIAN_OF_S)
        if end - start >= _SETTLED_S + 2 * _MEDIAN_OF_S and settled.any():
            then, last = float(np.median(mib[settled])), float(np.median(mib[at >= end - _MEDIAN_OF_S]))
            found[f"{kind}_growth_percent"] = round(100 * (last / then - 1), 2)
    return found


def disturbed(record: dict[str, Any]) -> float:
    """Cores that went neither to the service nor to the callers: to Redis, and to whatever else ran."""
    usage = record["usage"]
    return max(0.0, usage["machine_cores"] - usage["cores"] - record["generator_cores"]) if usage else 0.0


def wrong(record: dict[str, Any]) -> int:
    """Answers that name the wrong person, or somebody for a stranger."""
    return sum(record["answers"].get(verdict, 0) for verdict in ("swapped", "stranger identified"))
