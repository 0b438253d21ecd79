"""Pictures as callers have them: bytes, a file's path, or an http or https address."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from service.client.addresses import fetched, is_address
from service.client.errors import InvalidArgument

Picture: TypeAlias = bytes | str | os.PathLike[str]

# More than a service takes in one request unless it is told to.
_MAX_BYTES = 64_000_000
# So many together stay within what a service takes, as base64 too.
_BATCH_BYTES = 40_000_000

T = TypeVar("T")


def content_of(picture: Picture) -> bytes:
    """A picture's bytes.

    Raises:
        OSError: the file cannot be read.
        InvalidArgument: it is too large to be sent, or its address is neither http nor https.
        PictureNotFetched: it cannot be had from its address.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str) and is_address(picture):
        return fetched(picture)
    with Path(picture).open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{picture} has more than {_MAX_BYTES:,} bytes")
    return content


def contents_of(pictures: Picture | Sequence[Picture]) -> list[bytes]:
    """The bytes of one picture or several. Raises as `content_of`."""
    several = [pictures] if isinstance(pictures, bytes | str | os.PathLike) else pictures
    return [content_of(picture) for picture in several]


def batched(items: Iterable[tuple[T, Sequence[bytes]]], most: int) -> Iterator[list[T]]:
    """Items with their pictures in groups of at most so many pictures, and not too many bytes."""
    group: list[T] = []
    count = size = 0
    for item, contents in items:
        bytes_of_item = sum(len(content) for content in contents)
        if group and (count + len(contents) > most or size + bytes_of_item > _BATCH_BYTES):
            yield group
            group, count, size = [], 0, 0
        group.append(item)
        count += len(contents)
        size += bytes_of_item
    if group:
        yield group
