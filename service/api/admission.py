"""How much the service takes on at a time: requests in progress, and bytes of their bodies in memory.

Who sends a body slowly must not keep out who sends one at once. Where there is no room, the request whose body has
been arriving for longest gives up its slot, if it had some time; a newcomer is refused only where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import BodyTimeout
from service.domain import Overloaded
from service.telemetry import BODIES_BYTES, REQUESTS_IN_PROGRESS, TURNED_AWAY

Refusal = Callable[[Scope, Overloaded], Response]

_RETRY_AFTER_S = 1
# For so long a body may arrive before its request has to make room for others.
_PATIENCE_S = 2.0
# Whoever watches the service must hear of it when it is busiest.
_ALWAYS_ADMITTED = frozenset(("/health/live", "/health/ready", "/metrics"))


class Admission:
    """Counts what is in progress. Belongs to one event loop.

    Args:
        max_requests: in progress at once.
        max_bodies_bytes: of all request bodies in memory.

    Attributes:
        draining: the process is about to end; whoever chooses among replicas should choose another.
    """

    def __init__(self, *, max_requests: int, max_bodies_bytes: int) -> None:
        self.draining = False
        self._max_requests = max_requests
        self._max_bytes = max_bodies_bytes
        self._requests = 0
        self._bytes = 0
        # By when they began to arrive.
        self._arriving: dict[Slot, None] = {}

    def enter(self) -> Slot:
        """A slot for a new request. Raises Overloaded when there is none."""
        if self._requests >= self._max_requests and not self._make_room(None):
            TURNED_AWAY.labels("requests").inc()
            raise Overloaded(
                f"{self._max_requests} requests are in progress, which is all that are taken on at once",
                retry_after_s=_RETRY_AFTER_S,
            )
        return Slot(self)

    def _make_room(self, asking: Slot | None) -> bool:
        """Take away the slot of the slowest sender but the one that asks; whether there was one."""
        now = asyncio.get_running_loop().time()
        for slot in self._arriving:
            if now - slot.arriving_since < _PATIENCE_S:
                return False
            if slot is not asking:
                TURNED_AWAY.labels("slow-body").inc()
                slot.give_up()
                return True
        return False

    def _count(self, requests: int, size: int) -> None:
        self._requests += requests
        self._bytes += size
        REQUESTS_IN_PROGRESS.set(self._requests)
        BODIES_BYTES.set(self._bytes)


class Slot:
    """What one request takes up, until it leaves.

    Attributes:
        arriving_since: time of the event loop since when the body, or the next piece of it, is waited for.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0
        self._taken = True
        self._arrival: asyncio.Timeout | None = None
        self.arriving_since = 0.0
        admission._count(1, 0)

    def hold(self, size: int) -> None:
        """Say how many bytes of the body are in memory now. Raises Overloaded when they find no room."""
        admission, more = self._admission, size - self._held
        while more > 0 and self._taken and admission._bytes + more > admission._max_bytes:
            if not admission._make_room(self):
                TURNED_AWAY.labels("bodies").inc()
                raise Overloaded("the bodies of other requests fill the memory", retry_after_s=_RETRY_AFTER_S)
        if self._taken:
            self._held = size
            admission._count(0, more)

    @asynccontextmanager
    async def arriving(self, timeout_s: float) -> AsyncIterator[None]:
        """Wait for the body, or a piece of it, inside of this.

        Raises:
            BodyTimeout: it took longer than `timeout_s`.
            Overloaded: the slot was needed for others meanwhile.
        """
        arriving = self._admission._arriving
        try:
            async with asyncio.timeout(timeout_s) as self._arrival:
                self.arriving_since = asyncio.get_running_loop().time()
                arriving[self] = None
                try:
                    yield
                finally:
                    arriving.pop(self, None)
        except TimeoutError:
            if not self._taken:
                raise Overloaded(
                    "the body took so long to arrive that the request made room for others",
                    retry_after_s=_RETRY_AFTER_S,
                ) from None
            raise BodyTimeout(f"the body did not arrive within {timeout_s:g} s") from None

    def give_up(self) -> None:
        """Leave before the end, while the body still arrives."""
        self._admission._arriving.pop(self, None)
        self.leave()
        if self._arrival is not None and not self._arrival.expired():
            self._arrival.reschedule(asyncio.get_running_loop().time())

    def leave(self) -> None:
        """Nothing of the request is in progress any more."""
        if self._taken:
            self._taken = False
            self._admission._count(-1, -self._held)


class Admitted:
    """ASGI middleware: requests within the bounds get a slot, which is in their state, and others a refusal."""

    def __init__(self, app: ASGIApp, admission: Admission, refusal: Refusal) -> None:
        self._app = app
        self._admission = admission
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP passes through."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS_ADMITTED:
            await self._app(scope, receive, send)
            return
        try:
            slot = self._admission.enter()
        except Overloaded as error:
            await self._refusal(scope, error)(scope, receive, send)
            return
        scope.setdefault("state", {})["slot"] = slot
        try:
            await self._app(scope, receive, send)
        finally:
            slot.leave()
