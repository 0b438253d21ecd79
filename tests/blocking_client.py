"""The client for event loops, driven from ordinary tests: whatever holds for one client is asked of the other too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.client import AsyncShrinkFace


class BlockingClient:
    """Has the methods of `ShrinkFace`, by way of `AsyncShrinkFace`; what would be yielded comes as a list."""

    def __init__(self, portal: BlockingPortal, client: AsyncShrinkFace) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            async def call() -> Any:
                answer = getattr(self._client, name)(*args, **kwargs)
                return await answer if inspect.isawaitable(answer) else [item async for item in answer]

            return self._portal.call(call)

        return method


@contextmanager
def blocking_client(*args: Any, **kwargs: Any) -> Iterator[BlockingClient]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(AsyncShrinkFace(*args, **kwargs)) as client,
    ):
        yield BlockingClient(portal, client)
