"""When to send a call again, and after how long."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.client.calls import error_of
from service.client.errors import ProblemError, Unreachable

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 8.0
# Whoever is asked to wait longer is told, and may come back by themselves.
_LONGEST_ASKED_S = 60.0

_PASSING = (502, 503, 504)
_REFUSED = 429
# The request had not left when these happened.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# Sending these again would come to the same.
_OURS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


class Attempts:
    """Counts the attempts at one call.

    A call that may be repeated is, after a broken connection, a timeout, or 502, 503 and 504. One that may not is sent
    again only where the service cannot have begun it: there was no connection, or it refused by 429.

    Args:
        retries: attempts after the first.
        repeatable: see `Call`.
    """

    def __init__(self, retries: int, *, repeatable: bool) -> None:
        self._left = retries
        self._repeatable = repeatable
        self._longest_s = _FIRST_PAUSE_S

    def after_answer(self, response: httpx.Response) -> float | None:
        """Seconds until the next attempt; None where the answer is to be taken as it is."""
        passing = response.status_code in _PASSING or _in_progress(response)
        if response.status_code != _REFUSED and not (passing and self._repeatable):
            return None
        asked_s = _asked_s(response)
        if self._left <= 0 or asked_s > _LONGEST_ASKED_S:
            return None
        return asked_s + self._pause_s()

    def after_error(self, error: httpx.RequestError) -> float:
        """Seconds until the next attempt. Raises Unreachable when there is to be none."""
        again = isinstance(error, _NOT_SENT) or (
            self._repeatable and isinstance(error, httpx.TransportError) and not isinstance(error, _OURS)
        )
        if self._left <= 0 or not again:
            raise unreachable(error) from error
        return self._pause_s()

    def _pause_s(self) -> float:
        self._left -= 1
        longest_s, self._longest_s = self._longest_s, min(2 * self._longest_s, _LONGEST_PAUSE_S)
        # Spread, so that callers who failed together do not come back together.
        return random.uniform(longest_s / 2, longest_s)


def unreachable(error: httpx.RequestError) -> Unreachable:
    """The error for a call that got no whole answer."""
    url = error.request.url
    # `netloc` leaves out a user and password.
    return Unreachable(f"no answer from {url.scheme}://{url.netloc.decode()}: {str(error) or type(error).__name__}")


def _in_progress(response: httpx.Response) -> bool:
    """Whether an earlier attempt at the same enrolment is still being worked on."""
    if response.status_code != 409 or "Idempotency-Key" not in response.request.headers:
        return False
    error = error_of(response)
    return isinstance(error, ProblemError) and error.code == "idempotency-in-progress"


def _asked_s(response: httpx.Response) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date; 0 without it."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
