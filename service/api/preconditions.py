"""Entity tags: which state of a person or gallery a caller has seen (RFC 9110, 8.8.3 and 13.1.1)."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from service.domain import RevisionMismatch

_TAG = re.compile(r'^"r(\d{1,18})"$')


def etag(revision: int) -> str:
    """The tag of a revision."""
    return f'"r{revision}"'


async def _expected_revision(
    if_match: Annotated[
        str,
        Header(
            pattern=r'^(\*|(W/)?"[!#-~]*")$',
            description="Change only this state: an `ETag` that was read, or `*` for whatever there is.",
        ),
    ] = "*",
) -> int | None:
    """Revision that `If-Match` asks for; None where any will do.

    Raises:
        RevisionMismatch: it is not a tag that this service gives out, so nothing has it.
    """
    if if_match == "*":
        return None
    matched = _TAG.fullmatch(if_match)
    if matched is None:
        raise RevisionMismatch("nothing has this entity tag")
    return int(matched[1])


ExpectedRevision = Annotated[int | None, Depends(_expected_revision)]
