"""One process, or several that `torchrun` has started, which share the work of a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Peers(NamedTuple):
    """Processes that train one network together: which this one is, and how many there are."""

    rank: int
    count: int

    @classmethod
    def here(cls) -> Peers:
        """Those of this run; one where nobody called `joined`."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls(0, 1)

    @property
    def leads(self) -> bool:
        """Whether this one writes files and talks."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each process's tensor, the same everywhere."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()


def best_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the others that `torchrun` started; nothing without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
