"""Who calls: API keys out of requests, and what their callers may do.

An answer to `Unauthenticated` should carry `WWW-Authenticate: Bearer`, which `problems` adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from structlog.contextvars import bind_contextvars

from service.access import Access, ApiKey, Scope
from service.domain import Forbidden, Unauthenticated

ANONYMOUS = "anonymous"

_HEADER = APIKeyHeader(
    name="X-API-Key", scheme_name="ApiKeyHeader", description="An API key, `sf_...`.", auto_error=False
)
_BEARER = HTTPBearer(scheme_name="BearerToken", description="The same API key as a bearer token.", auto_error=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request.

    Attributes:
        actor: id of the key, or `anonymous`; may be logged.
        key: None where the service needs none; then everything is allowed.
        spender: whom requests are counted for.
    """

    actor: str
    key: ApiKey | None
    spender: str

    def require(self, scope: Scope, gallery: str | None = None) -> None:
        """Return if the caller may do what needs this scope, in this gallery; None is a call that touches no gallery.

        Raises:
            Forbidden: the key does not allow it.
        """
        if self.key is not None:
            self.key.allows(scope, gallery)

    def require_everywhere(self, scope: Scope) -> None:
        """As `require`, for a call that concerns all galleries. Raises Forbidden."""
        self.require(scope)
        if self.key is not None and self.key.galleries is not None:
            raise Forbidden("this API key is for some galleries only, and this call concerns all of them")

    def sees(self, gallery: str) -> bool:
        """Whether a list may show the caller this gallery."""
        return self.key is None or self.key.admits(gallery)

    async def spend(self, access: Access, requests: int) -> None:
        """Count more requests than the one that a call is. Raises RateLimited."""
        if requests > 0:
            await access.limiter.spend(self.spender, requests)


async def authenticated(
    request: Request,
    header: Annotated[str | None, Security(_HEADER)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> Caller:
    """The caller of a request, which is counted against their rate. Puts `actor` into the request's state and logs.

    Raises:
        Unauthenticated: a key is needed, and there is none, not a valid one, or two different ones.
        RateLimited: the caller has used up their requests for now, or their host has tried too many wrong keys.
    """
    access: Access = request.state.running.access
    # A server on a socket file knows no client host.
    host = request.client.host if request.client is not None else "local"
    if access.required:
        key = await access.key_of(_token(header, bearer), host)
        caller = Caller(key.key_id, key, f"key:{key.key_id}")
    else:
        caller = Caller(ANONYMOUS, None, f"host:{host}")
    # Before the limiter, so that the log says who was turned away.
    request.state.actor = caller.actor
    bind_contextvars(actor=caller.actor)
    await access.limiter.spend(caller.spender)
    return caller


Authenticated = Annotated[Caller, Depends(authenticated)]


def _token(header: str | None, bearer: HTTPAuthorizationCredentials | None) -> str:
    if bearer is None:
        if header is None:
            raise Unauthenticated("this service needs an API key, as X-API-Key or as Authorization: Bearer")
        return header
    if header is not None and header != bearer.credentials:
        raise Unauthenticated("X-API-Key and Authorization hold different API keys; send one")
    return bearer.credentials
