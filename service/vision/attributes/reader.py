"""The attribute networks of a service together, each behind a micro-batcher of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError
from service.domain import AttributeReading, AttributeUnavailable, mean_reading
from service.ports import AttributesTold, BoxView, FoundFace
from service.vision.attributes.manifest import BoxCrop, ClassesReading, Reading, ScoreReading, read_attribute_manifest
from service.vision.attributes.mask import OnnxMaskNetwork
from service.vision.attributes.network import AttributeNetwork
from service.vision.batching import MicroBatcher

_Told = dict[str, AttributeReading]


def load_networks(
    mask_path: Path | None, model_paths: Sequence[Path], providers: Sequence[str]
) -> list[AttributeNetwork]:
    """The mask classifier, if there is one, and the networks that an operator brings.

    Args:
        providers: onnxruntime's, for the latter; the mask classifier is too small to gain by any but the CPU.

    Raises:
        ContractError: a file or its manifest is missing, damaged, or does not fit, or networks tell an attribute in
            different ways.
    """
    networks: list[AttributeNetwork] = [] if mask_path is None else [OnnxMaskNetwork(mask_path)]
    networks += [AttributeNetwork(path, read_attribute_manifest(path), providers=providers) for path in model_paths]
    _check_agreement(networks)
    return networks


class BatchedAttributes:
    """AttributeReader port: requests share the runs of each network.

    Args:
        networks: those that tell the same attribute are averaged. They agree on its kind, labels, unit and threshold.
        max_batch: faces in a run.
        max_pending: faces that may wait for each network; more are refused.
        deadline_s: how long a face may wait for a run to begin.
        on_batch: told the network's name and the size of each run.

    Attributes:
        names: see the port.
    """

    def __init__(
        self,
        networks: Sequence[AttributeNetwork],
        *,
        max_batch: int = 64,
        max_pending: int = 512,
        deadline_s: float = 5.0,
        on_batch: Callable[[str, int], None] | None = None,
    ) -> None:
        self._batched = [
            _Batched(network, max_batch, max_pending, deadline_s, on_batch or (lambda _name, _size: None))
            for network in networks
        ]
        self.names: frozenset[str] = frozenset(name for each in self._batched for name in each.network.names)

    @property
    def networks_of(self) -> Mapping[str, str]:
        """Names of the networks that tell each attribute."""
        return {
            name: ", ".join(each.network.manifest.name for each in self._batched if name in each.network.names)
            for name in sorted(self.names)
        }

    def views(self, asked: Collection[str]) -> frozenset[BoxView]:
        """See the port."""
        crops = [each.network.manifest.crop for each in self._needed(asked)]
        return frozenset(crop.view for crop in crops if isinstance(crop, BoxCrop))

    async def read(self, faces: Sequence[FoundFace], asked: Collection[str]) -> AttributesTold:
        """See the port."""
        started = time.perf_counter()
        needed = self._needed(asked) if faces else []
        took_ms: dict[str, float] = dict.fromkeys(asked, 0.0)

        async def told_by(each: _Batched) -> list[_Told]:
            told = await each.read(faces)
            for name in each.network.names & took_ms.keys():
                took_ms[name] = max(took_ms[name], (time.perf_counter() - started) * 1e3)
            return told

        by_network = await asyncio.gather(*(told_by(each) for each in needed))
        return AttributesTold(
            [
                {
                    name: mean_reading([told[index][name] for told in by_network if name in told[index]])
                    for name in took_ms
                }
                for index in range(len(faces))
            ],
            took_ms,
        )

    async def close(self) -> None:
        """Fail what waits and end the worker threads."""
        await asyncio.gather(*(each.batcher.close() for each in self._batched))

    def _needed(self, asked: Collection[str]) -> list[_Batched]:
        return [each for each in self._batched if each.network.names & set(asked)]


class _Batched:
    def __init__(
        self,
        network: AttributeNetwork,
        max_batch: int,
        max_pending: int,
        deadline_s: float,
        on_batch: Callable[[str, int], None],
    ) -> None:
        self.network = network
        self.batcher: MicroBatcher[FoundFace, _Told] = MicroBatcher(
            self._run,
            max_batch=max_batch,
            max_pending=max_pending,
            deadline_s=deadline_s,
            on_batch=lambda size: on_batch(network.manifest.name, size),
        )

    async def read(self, faces: Sequence[FoundFace]) -> list[_Told]:
        return await self.batcher.submit(faces)

    def _run(self, faces: list[FoundFace]) -> list[_Told | AttributeUnavailable]:
        views: NDArray[np.uint8] = np.stack([self.network.view_of(face) for face in faces])
        return self.network.read(views)


def _check_agreement(networks: Sequence[AttributeNetwork]) -> None:
    first: dict[str, tuple[str, object]] = {}
    for network in networks:
        for reading in network.manifest.readings:
            form = _form(reading)
            name, other = first.setdefault(reading.name, (network.manifest.name, form))
            if form != other:
                raise ContractError(
                    f"the networks {name} and {network.manifest.name} tell {reading.name} in different ways, so that "
                    "they cannot be averaged"
                )


def _form(reading: Reading) -> object:
    """What readings of one attribute must have in common."""
    if isinstance(reading, ClassesReading):
        return frozenset(reading.labels)
    return ("score", reading.threshold) if isinstance(reading, ScoreReading) else ("value", reading.unit)
