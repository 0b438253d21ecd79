"""Cursors: where a list goes on, sealed so that nobody builds on what is in them."""

from __future__ import annotations

import base64
import binascii

from service.api.problems import CursorInvalid


def seal(kind: str, position: str) -> str:
    """A cursor for a position in a kind of list."""
    return base64.urlsafe_b64encode(f"{kind}1:{position}".encode()).decode().rstrip("=")


def unseal(kind: str, cursor: str) -> str:
    """The position that a cursor was made for. Raises CursorInvalid."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise CursorInvalid("the cursor cannot be read") from None
    version, _, position = text.partition(":")
    if version != f"{kind}1" or not position or seal(kind, position) != cursor:
        raise CursorInvalid("the cursor was not handed out by this service for this list")
    return position
