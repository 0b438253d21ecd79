"""Persons in order of their ids, of a store that answers in no order."""

from __future__ import annotations

import math

from service.gallery.milvus.rows import PersonRow
from service.gallery.milvus.tables import ROW_LIMIT, Tables

# Ids that are looked at to find how far a page reaches.
_SAMPLE = 512


def page_of_persons(tables: Tables, gallery: str, after: str, limit: int) -> list[PersonRow]:
    """The first `limit` persons behind `after`, in order of id.

    Milvus sorts nothing, so a page is a range of ids: where it ends is read off an even sample of the ids behind
    `after`, and what lies inside is fetched whole and sorted here.
    """
    page: list[PersonRow] = []
    while len(page) < limit:
        wanted = min(limit - len(page), ROW_LIMIT // 4)
        upto, portion = _end_of_range(tables, gallery, after, wanted), []
        while True:
            portion = tables.persons_between(gallery, after, upto)
            if len(portion) < ROW_LIMIT:
                break
            # More than an answer holds: end among what came.
            upto = sorted(row.person_id for row in portion)[wanted]
        portion.sort(key=lambda row: row.person_id)
        page += portion
        if upto is None:
            break
        after = upto
    return page[:limit]


def _end_of_range(tables: Tables, gallery: str, after: str, wanted: int) -> str | None:
    """An id such that about twice `wanted` persons are behind `after` and up to it; None if that is everybody."""
    count = tables.count_persons(gallery, after)
    if count <= min(4 * wanted, ROW_LIMIT - 1):
        return None
    sample = sorted(tables.sampled_ids(gallery, after, _SAMPLE / count))
    place = math.ceil(2 * wanted / count * len(sample))
    return sample[place] if place < len(sample) else None
