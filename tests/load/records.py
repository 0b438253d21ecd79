"""Records of the gallery benchmark: a file of JSON lines that only grows, so that a long run can be taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.load.measuring import Job, disturbed
from tests.load.structures import STRUCTURES

Record = dict[str, Any]
Key = tuple[object, ...]
# What makes two records answers to the same question.
_KEY = ("structure", "data", "dimension", "size", "probes", "tuning_probes", "threads", "seed")


def key(record: Record) -> Key:
    """What was measured, whatever came out."""
    return tuple(record[name] for name in _KEY)


def read(path: Path) -> list[Record]:
    """The last record of each measurement, in the order of their first; a line cut off by a crash is passed over."""
    found: dict[Key, Record] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[key(record)] = record
    return list(found.values())


def append(path: Path, record: Record) -> None:
    """Add one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line that a crash cut off must not swallow this one.
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as out:
        out.write(("\n" if cut_off else "") + json.dumps(record) + "\n")


def estimated_build_s(records: list[Record], job: Job) -> float | None:
    """From the largest smaller gallery of the same kind that was built; None where there is none."""
    alike = [
        record
        for record in records
        if record["status"] == "ok"
        # A machine that stood still for minutes would have every larger gallery skipped.
        and "build" not in disturbed(record)
        and record["size"] < job.size
        and all(record[name] == getattr(job, name) for name in ("structure", "data", "dimension", "threads"))
    ]
    if not alike:
        return None
    nearest = max(alike, key=lambda record: record["size"])
    grows = STRUCTURES[job.structure].grows
    return float(nearest["build_s"]) * grows(job.size) / grows(nearest["size"])
