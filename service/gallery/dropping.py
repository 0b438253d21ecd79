"""Erasing what a dropped gallery held, some thousands of rows a commit, so that other changes need not wait for it."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from service.domain import Removal
from service.gallery import erasing, galleries
from service.gallery.store import Store, as_it_is

_ROWS_AT_ONCE = 2_000


async def erase_dropped(store: Store, gallery_key: int, revision: int, index_gone: Future[None]) -> Removal:
    """Erase the rows of a gallery that has no name any more.

    Args:
        revision: that dropping it made.
        index_gone: done when the files of its index are.
    """
    faces = persons = crops = 0
    digests: list[str] = []
    drop_some = partial(erasing.drop_some, gallery_key=gallery_key, limit=_ROWS_AT_ONCE)
    while (gone := await asyncio.wrap_future(store.change(drop_some, publish=as_it_is))) is not None:
        faces += len(gone.face_keys)
        persons += gone.persons
        crops += gone.crops
        digests += gone.crop_digests
    # Carries the log into the database and cuts it.
    await asyncio.wrap_future(store.change(lambda _: None, publish=as_it_is, erases=True))
    await asyncio.wrap_future(index_gone)
    return Removal(persons, faces, faces, revision, tuple(digests), crops)


def finish_drops(store: Store, indexes: Path) -> None:
    """Erase what is left of galleries that were being dropped when the process ended: rows, and indexes' files."""
    drop_some = [
        partial(erasing.drop_some, gallery_key=key, limit=_ROWS_AT_ONCE) for key in store.read(galleries.dropped)
    ]
    for drop in drop_some:
        while store.change(drop, publish=as_it_is, erases=True).result() is not None:
            pass
    names = set(store.gallery_names().values())
    for folder in indexes.iterdir() if indexes.is_dir() else ():
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)
