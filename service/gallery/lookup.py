"""From probes to persons: what the index finds, with the names that the store has for it. Blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import Match
from service.gallery.collection import IndexCollection
from service.gallery.expiry import ExpiryWatch
from service.gallery.search import Hit
from service.gallery.store import Store
from service.gallery.vectors import cosines
from service.ports import SearchResult


class Lookup:
    """Searches the galleries of one folder; safe to call from several threads."""

    def __init__(self, store: Store, indexes: IndexCollection, expiry: ExpiryWatch) -> None:
        self._store, self._indexes, self._expiry = store, indexes, expiry

    def search(self, gallery: str, probes: NDArray[np.float32], top_k: int, *, exact: bool) -> list[SearchResult]:
        """See `Gallery.search`, for (n, d) float32 probes of unit length."""
        self._expiry.hide()
        index = self._indexes.get(gallery)
        if index is None:
            return [SearchResult((), 0) for _ in probes]
        wanted = top_k
        while True:
            found, size = index.search(probes, wanted, exact=exact)
            names = self._store.names_of({hit.person for hits in found for hit in hits})
            kept = [[hit for hit in hits if hit.person in names][:top_k] for hits in found]
            # A person whose deletion is committed but not yet in the index has no name any more. Nobody else may be
            # crowded out by them, so look deeper until the places are filled or nobody is left.
            if all(len(row) == top_k or len(hits) < wanted for row, hits in zip(kept, found, strict=True)):
                return [SearchResult(tuple(_match(hit, names) for hit in row), size) for row in kept]
            wanted += len({hit.person for hits in found for hit in hits} - names.keys())

    def search_among(
        self, gallery: str, probes: NDArray[np.float32], top_k: int, among: Sequence[str]
    ) -> list[SearchResult]:
        """See `Gallery.search` for what `among` means."""
        names, faces = self._store.faces_among(gallery, among)
        results = []
        for probe in probes:
            scores = cosines(faces.embeddings, probe).tolist()
            ranked = sorted(zip(scores, faces.face_ids, faces.person_keys.tolist(), strict=True), key=_best_first)
            best: dict[int, Match] = {}
            for score, face_id, person_key in ranked:
                person_id, name = names[person_key]
                best.setdefault(person_key, Match(person_id, face_id, score, name))
            results.append(SearchResult(tuple(best.values())[:top_k], len(faces.face_ids)))
        return results

    def similarities(self, gallery: str, person_id: str, probe: NDArray[np.float32]) -> list[Match]:
        """See `Gallery.similarities_to`, for a probe (d,) float32 of unit length."""
        name, faces = self._store.faces_of(gallery, person_id)
        scores = cosines(faces.embeddings, probe).tolist()
        matches = [
            Match(person_id, face_id, score, name) for face_id, score in zip(faces.face_ids, scores, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.similarity, match.face_id))


def _best_first(ranked: tuple[float, str, int]) -> tuple[float, str]:
    return -ranked[0], ranked[1]


def _match(hit: Hit, names: Mapping[int, tuple[str, str | None]]) -> Match:
    person_id, name = names[hit.person]
    return Match(person_id=person_id, face_id=hit.face_id, similarity=hit.similarity, name=name)
