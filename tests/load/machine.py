"""What the benchmark reads of the machine and the process it runs on, Linux alone."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gib() -> float:
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def described() -> dict[str, object]:
    """Processor, cores, memory and Python, for the record."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return {
        "processor": next(models, platform.machine()),
        "memory_gib": round(memory_gib()),
        "python": platform.python_version(),
    }


def version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def resident_mib() -> dict[str, float]:
    """Memory of this process in RAM: its own (`anonymous`), and pages of files (`file`), which the system may drop."""
    # What the allocator keeps from temporary arrays belongs to nobody.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.partition(":") for line in lines if line.startswith("Rss"))
    kib = {name: int(rest.split()[0]) for name, _, rest in fields}
    return {"anonymous": (kib["RssAnon"] + kib["RssShmem"]) / 1024, "file": kib["RssFile"] / 1024}


def peak_mib() -> float:
    """The most memory this process had in RAM since `forget_peak`, MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Start `peak_mib` anew, where that is allowed; elsewhere the peak is the process's own."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def one_core() -> Iterator[None]:
    """Every thread of this process on one core, those that libraries have started included."""
    before = os.sched_getaffinity(0)
    _pin({max(before)})
    try:
        yield
    finally:
        _pin(before)


def _pin(allowed: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), allowed)
        except ProcessLookupError:
            continue  # It has ended in the meantime.
