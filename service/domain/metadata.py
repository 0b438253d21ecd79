"""What may be remembered of a person beside their name: a JSON object, of bounded depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.domain.errors import InvalidRequest

# Far under what any parser or writer of JSON on the way gives up at; the deepest ones end at about two hundred.
MAX_METADATA_DEPTH = 64


def check_metadata_depth(metadata: Mapping[str, Any]) -> None:
    """See to it that whoever reads the metadata later can.

    Args:
        metadata: of JSON's values; the object itself is the first level.

    Raises:
        InvalidRequest: objects and arrays are nested more than `MAX_METADATA_DEPTH` levels deep.
    """
    level: list[Any] = [metadata]
    for _ in range(MAX_METADATA_DEPTH):
        level = [value for each in level for value in _values(each) if isinstance(value, Mapping | list | tuple)]
        if not level:
            return
    raise InvalidRequest(
        f"the metadata is nested too deeply, at most {MAX_METADATA_DEPTH} levels are accepted",
        field="metadata",
        limit_levels=MAX_METADATA_DEPTH,
    )


def _values(container: Mapping[str, Any] | list[Any] | tuple[Any, ...]) -> list[Any]:
    return list(container.values() if isinstance(container, Mapping) else container)
