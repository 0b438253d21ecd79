"""What every `Gallery` promises of a search among some persons."""

from __future__ import annotations

import numpy as np
import pytest

from service.domain import InvalidEmbedding
from service.ports import SearchResult
from tests.contract.conftest import DIMENSION, OpenGallery
from tests.contract.test_gallery_contract import face, opened, unit

pytestmark = pytest.mark.anyio


async def test_only_the_faces_of_those_named_are_searched_and_counted(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "nearest", None, {}, [face("a1", 1)])
        await gallery.enrol("g", "near", "Near", {}, [face("b1", -1), face("b2", 1, 1)])
        await gallery.enrol("g", "far", None, {}, [face("c1", 0, 1), face("c2", -1, 0.1), face("c3", -1)])
        await gallery.enrol("g", "tied", None, {}, [face("b0", 1, 1)])
        await gallery.enrol("g", "faceless", None, {}, [])
        await gallery.enrol("h", "elsewhere", None, {}, [face("a1", 1)])
        probes = np.stack([unit(1), unit(0, 1)])
        one, other = await gallery.search("g", probes, 5, among=["far", "near", "near"])
        assert [(m.person_id, m.face_id, m.name) for m in one.matches] == [("near", "b2", "Near"), ("far", "c1", None)]
        assert one.matches[0].similarity == pytest.approx(0.5**0.5, abs=1e-6)
        assert [(m.person_id, m.face_id) for m in other.matches] == [("far", "c1"), ("near", "b2")]
        assert (one.gallery_size, other.gallery_size) == (5, 5)
        # Nobody else's ids, and what could be nobody's, stand in the way.
        among = ["elsewhere", "nobody", "", "a b", "x" * 500, "\ud800", "tied", "near", "faceless"]
        for exact in (False, True):
            (result,) = await gallery.search("g", unit(1)[np.newaxis], 1, exact=exact, among=among)
            assert [(m.person_id, m.face_id) for m in result.matches] == [("tied", "b0")]
            assert result.gallery_size == 3
        everybody = ["nearest", "near", "far", "tied", "faceless"]
        assert await gallery.search("g", probes, 5, among=everybody) == await gallery.search("g", probes, 5)


async def test_among_nobody_there_is_no_match(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "ann", None, {}, [face("f1", 1)])
        for name, among in (("g", []), ("g", ["bob", "a/b"]), ("nowhere", ["ann"]), ("a/b", ["ann"])):
            assert await gallery.search(name, unit(1)[np.newaxis], 3, among=among) == [SearchResult((), 0)]
        with pytest.raises(InvalidEmbedding):
            await gallery.search("g", np.zeros((1, DIMENSION), dtype=np.float32), 3, among=["ann"])
        assert await gallery.search("g", np.empty((0, DIMENSION), dtype=np.float32), 3, among=["ann"]) == []


async def test_a_search_among_persons_sees_acknowledged_changes(open_gallery: OpenGallery) -> None:
    async with opened(open_gallery) as gallery:
        await gallery.enrol("g", "bob", None, {}, [face("f0", 0, 1)])
        for round_ in range(3):
            await gallery.enrol("g", "ann", None, {}, [face(f"f{round_}-1", 1), face(f"f{round_}-2", 1, 1)])
            (seen,) = await gallery.search("g", unit(1)[np.newaxis], 5, among=["bob", "ann"])
            assert ([m.person_id for m in seen.matches], seen.gallery_size) == (["ann", "bob"], 3)
            await gallery.forget_person("g", "ann")
            (seen,) = await gallery.search("g", unit(1)[np.newaxis], 5, among=["bob", "ann"])
            assert ([m.person_id for m in seen.matches], seen.gallery_size) == (["bob"], 1)
