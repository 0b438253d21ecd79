"""All faults, a module a family."""

from __future__ import annotations

from tests.chaos.fault import Fault
from tests.chaos.faults import cache, clients, clock, damage, disk, milvus, signals

FAULTS: dict[str, type[Fault]] = {
    fault.name: fault for family in (cache, signals, disk, clock, milvus, clients, damage) for fault in family.FAULTS
}
