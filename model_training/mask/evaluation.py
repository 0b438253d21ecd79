"""How often an exported mask classifier is wrong, through the code that serves it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.domain import MASK_WORN_FROM
from service.vision.attributes.mask import OnnxMaskNetwork

_AT_ONCE = 256


def probabilities(network: OnnxMaskNetwork, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n,) of (n, 112, 112, 3) uint8 BGR crops, which may be memory-mapped."""
    parts = [network.probabilities(np.asarray(crops[at : at + _AT_ONCE])) for at in range(0, len(crops), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def error_rates(
    network: OnnxMaskNetwork, masked: Mapping[str, NDArray[np.uint8]], bare: Mapping[str, NDArray[np.uint8]]
) -> dict[str, dict[str, float | None]]:
    """By collection, the number of faces and the percentage that is answered wrongly: missed masks, false alarms."""
    figures: dict[str, dict[str, float | None]] = {}
    for name, crops in masked.items():
        missed = probabilities(network, crops) < MASK_WORN_FROM
        figures[name] = {"faces": len(crops), "missed_percent": _percent(missed)}
    for name, crops in bare.items():
        alarms = probabilities(network, crops) >= MASK_WORN_FROM
        figures[name] = {"faces": len(crops), "false_alarm_percent": _percent(alarms)}
    return figures


def _percent(wrong: NDArray[np.bool_]) -> float | None:
    return round(100 * float(wrong.mean()), 2) if len(wrong) else None
