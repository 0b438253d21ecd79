"""Who may come in, and how often."""

from __future__ import annotations

import asyncio

from service.access.failures import FailureTable
from service.access.keys import ApiKey, KeyFile
from service.access.limits import RateLimiter
from service.domain import Unauthenticated


class Access:
    """What the HTTP surface asks before it serves anybody.

    Args:
        required: whether a key is needed at all.
        keys: that open the service.
        limiter: of requests, by key, or by client host where no key is needed.
        failures: of wrong keys, by client host.
    """

    def __init__(
        self, *, required: bool, keys: KeyFile, limiter: RateLimiter, failures: FailureTable | None = None
    ) -> None:
        self.required = required
        self.keys = keys
        self.limiter = limiter
        self._failures = failures if failures is not None else FailureTable()

    async def key_of(self, token: str, host: str) -> ApiKey:
        """The key that a token is for. A right key is never held up by its host's wrong ones.

        Raises:
            Unauthenticated: there is none.
            RateLimited: there is none, and the host has tried too many wrong ones.
        """
        if self.keys.due:
            await asyncio.to_thread(self.keys.refresh)
        try:
            return self.keys.authenticate(token)
        except Unauthenticated:
            self._failures.note(host)
            raise

    async def close(self) -> None:
        """Close the limiter's connections."""
        await self.limiter.close()
