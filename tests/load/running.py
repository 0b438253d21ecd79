"""Measurements one after another, each in a process of its own, so that none has the memory or threads of another."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.load import machine
from tests.load.measuring import Job
from tests.load.records import Record, append, estimated_build_s, key, read

_REPOSITORY = Path(__file__).parent.parent.parent
_PREPARING_S = 4 * 3_600


class Failed(Exception):
    """A measuring process ended without a record; the text says how."""


def run(
    jobs: Iterable[Job],
    out: Path,
    *,
    skip_build_over_s: float,
    give_up_after_s: float,
    memory_limit_gib: float,
    again: bool,
    tell: Callable[[str], None],
) -> None:
    """Measure what `out` has no result for.

    Args:
        jobs: in the order wanted, small galleries first: estimates come from them.
        out: file of records to carry on.
        skip_build_over_s: estimated build times above this are recorded as skipped.
        give_up_after_s: for one measurement.
        memory_limit_gib: for one measurement, which fails beyond it.
        again: measure what has a result as well; the new one takes its place.
        tell: what to do with a line about progress.
    """
    folder = out.with_suffix(".truth")
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        records = read(out)
        done = {key(record) for record in records if record["status"] == "ok"}
        if key(job._asdict()) in done and not again:
            continue
        name = f"{job.structure}, {job.size:,} x {job.dimension}, {job.data}"
        estimate_s = estimated_build_s(records, job)
        if estimate_s is not None and estimate_s > skip_build_over_s:
            tell(f"{name}: skipped: estimated {estimate_s / 60:.1f} min")
            append(out, _without_result(job, "skipped", f"estimated {estimate_s / 60:.1f} min to build"))
            continue
        tell(f"{name} ..." if estimate_s is None else f"{name}, building takes about {estimate_s:.0f} s ...")
        started = time.monotonic()
        record = _measured(job, folder, give_up_after_s, int(memory_limit_gib * 2**30))
        append(out, record)
        tell(f"{name}: {record['status']} after {time.monotonic() - started:.0f} s {record.get('detail', '')}")


def _measured(job: Job, folder: Path, give_up_after_s: float, limit_bytes: int) -> Record:
    try:
        if not (folder / job.truth_name()).exists():
            _child("prepare", job, folder, _PREPARING_S, limit_bytes)
        return {**_child("measure", job, folder, give_up_after_s, limit_bytes), "machine": machine.described()}
    except Failed as failure:
        return _without_result(job, "failed", str(failure))


def _without_result(job: Job, status: str, detail: str) -> Record:
    return {**job._asdict(), "status": status, "detail": detail, "machine": machine.described()}


def _child(command: str, job: Job, folder: Path, limit_s: float, limit_bytes: int) -> Record:
    """What a process says in its last line.

    Raises:
        Failed: it says nothing, or takes too long.
    """
    threads = str(job.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    arguments = [sys.executable, "-m", "tests.load.gallery", command, json.dumps(job._asdict()), str(folder.resolve())]
    with tempfile.TemporaryFile() as errors:
        try:
            ended = subprocess.run(
                arguments,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=limit_s,
                env=environment,
                cwd=_REPOSITORY,
                check=False,
                # A process that fills the machine would take others down with it.
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes)),
            )
        except subprocess.TimeoutExpired as late:
            raise Failed(f"given up after {limit_s / 60:.0f} min") from late
        said = ended.stdout.decode(errors="replace").strip().splitlines()
        if ended.returncode or not said:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"exit status {ended.returncode} {' '.join(last)}"[:300])
    try:
        record: Record = json.loads(said[-1])
    except json.JSONDecodeError as error:
        raise Failed(f"said {said[-1][:200]}") from error
    return record
