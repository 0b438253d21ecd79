"""No cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.ports import KnownPicture


class NullCache:
    """Remembers nothing."""

    async def get(self, keys: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """A miss for every key."""
        return [None] * len(keys)

    async def put(self, entries: Mapping[str, NDArray[np.float32]]) -> None:
        """Does nothing."""

    async def seen(self, picture: str) -> KnownPicture | None:
        """A miss."""
        return None

    async def saw(self, picture: str, known: KnownPicture) -> None:
        """Does nothing."""

    async def remove(self, keys: Sequence[str]) -> int | None:
        """Nothing was there."""
        return 0

    async def close(self) -> None:
        """Nothing to let go of."""
