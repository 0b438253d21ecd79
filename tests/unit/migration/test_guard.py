"""The gate, and what passes it: changes to whatever is served, erasures also to the gallery beside it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.cache import RedisCache
from service.domain import GallerySettings, Overloaded, PersonChange, PersonNotFound
from service.migration.guard import Gate, GuardedGallery, Shadow
from service.migration.links import LinkedCache, ServedJournal
from service.ports import EmbeddingCache, Gallery, Journal, JournalEntry, Replay
from tests.redis_fixture import RedisServer
from tests.unit.migration.common import NEW, face, old_and_new, person, unit

pytestmark = pytest.mark.anyio

Guards = tuple[GuardedGallery, GuardedGallery, Gate]


@pytest.fixture
async def guards(tmp_path: Path) -> AsyncIterator[Guards]:
    gate = Gate()
    old, new = (GuardedGallery(each, gate) for each in old_and_new(tmp_path))
    yield old, new, gate
    await old.close()
    await new.close()


@pytest.mark.parametrize(
    ("wrapper", "port"), [(GuardedGallery, Gallery), (ServedJournal, Journal), (LinkedCache, EmbeddingCache)]
)
async def test_no_method_of_the_port_is_left_to_the_protocol(wrapper: type, port: type) -> None:
    # What a wrapper does not define would be the protocol's own empty body, and answer None.
    methods = {name for name, value in vars(port).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert methods
    assert methods <= vars(wrapper).keys()


async def test_a_closed_gate_holds_changes_back_and_lets_searches_through(guards: Guards) -> None:
    old, _, gate = guards
    await old.import_persons("g", [person("ann", face("a"))])
    async with gate.closed():
        change = asyncio.create_task(old.update_person("g", "ann", PersonChange(name="Ann")))
        (found,) = await asyncio.wait_for(old.search("g", face("a").embedding[None], 1), 5)
        assert found.matches[0].person_id == "ann"
        await asyncio.sleep(0.05)
        assert not change.done()
        assert (await old.person("g", "ann")).name is None
    assert (await change).name == "Ann"


async def test_the_gate_waits_for_changes_that_have_begun() -> None:
    gate, order = Gate(), []

    async def change() -> None:
        async with gate.passing():
            await asyncio.sleep(0.05)
            order.append("change")

    task = asyncio.create_task(change())
    await asyncio.sleep(0)
    async with gate.closed():
        order.append("closed")
    await task
    assert order == ["change", "closed"]


@pytest.mark.parametrize("what", ["person", "face", "gallery", "name"])
async def test_an_erasure_reaches_the_shadow(guards: Guards, what: str) -> None:
    old, new, _ = guards
    for each in (old, new):
        await each.inner.create_gallery("g", GallerySettings(keep_crops=True))
        await each.inner.enrol("g", "ann", "Ann", {}, [])
    await old.inner.import_persons("g", [person("ann", face("a"))])
    new.shadow = Shadow(old.inner)
    if what == "person":
        removal = await new.forget_person("g", "ann")
        # The face was in the shadow alone, and a cache may still have its embedding.
        assert removal.crop_digests == (face("a").crop_digest,)
        assert await old.persons("g", after=None, limit=5) == []
    elif what == "face":
        with pytest.raises(Exception, match="no face of this id"):
            await new.forget_face("g", "ann", "a")
        assert (await old.person("g", "ann")).face_ids == ()
    elif what == "gallery":
        await new.drop_gallery("g")
        assert await old.galleries() == []
    else:
        await new.update_person("g", "ann", PersonChange(name="Anna"))
        assert (await old.person("g", "ann")).name == "Anna"


async def test_a_repeated_erasure_finishes_one_that_was_cut_short(guards: Guards) -> None:
    old, new, _ = guards
    await old.inner.import_persons("g", [person("ann", face("a"))])
    await new.inner.create_gallery("g", GallerySettings())
    new.shadow = Shadow(old.inner)
    with pytest.raises(PersonNotFound):
        await new.forget_person("g", "ann")
    with pytest.raises(PersonNotFound):
        await old.person("g", "ann")


async def test_who_is_served_no_more_passes_changes_on_but_no_embeddings(guards: Guards) -> None:
    old, new, _ = guards
    for each in (old, new):
        await each.inner.enrol("g", "ann", None, {}, [])
    old.successor, new.shadow = new, Shadow(old.inner)
    with pytest.raises(Overloaded) as refusal:
        await old.enrol("g", "bob", None, {}, [face("b")])
    assert refusal.value.details == {"retry_after_s": 1}
    with pytest.raises(Overloaded):
        await old.import_persons("g", [person("bob", face("b"))])
    await old.enrol("g", "eve", None, {}, [])
    await old.forget_person("g", "ann")
    assert [each.person_id for each in await new.persons("g", after=None, limit=5)] == ["eve"]
    assert await old.persons("g", after=None, limit=5) == []


async def test_the_journal_goes_on_and_answers_are_erased_from_both(guards: Guards) -> None:
    old, new, gate = guards
    first, second = old.inner.journal(kept_days=30), new.inner.journal(kept_days=30)
    journal = ServedJournal(first, gate)
    now = datetime.now(UTC)
    await journal.note(JournalEntry(now, "k", "person.enrol", "g", "ann"))
    await journal.keep("key", Replay("print", "g", "ann", b"answer"))
    await new.inner.take_over(old.inner)
    journal.current, journal.beside = second, first
    await journal.note(JournalEntry(now, "k", "person.erase", "g", "ann"))
    assert await journal.erase("g", "ann") == 1
    actions = [entry.action for _, entry in await journal.entries(gallery=None, person_id=None, before=None, limit=9)]
    assert actions == ["person.erase", "person.enrol"]
    assert [(await each.replay("key")).answer for each in (first, second)] == [None, None]
    # And back: what was noted since comes over, and nothing twice.
    await old.inner.take_over(new.inner)
    assert len(await first.entries(gallery=None, person_id=None, before=None, limit=9)) == 2


@pytest.mark.redis
async def test_what_is_erased_leaves_the_caches_of_both_models(redis_server: RedisServer) -> None:
    # Longer than any pause of a busy machine.
    caches = [
        LinkedCache(RedisCache(redis_server.url, space_id=space, dimension=NEW, timeout_s=5, ttl_s=60))
        for space in ("sf1-old", "sf1-new")
    ]
    old, new = caches
    old.beside, new.beside = new.own, old.own
    for each in caches:
        await each.put({"digest": unit(b"face", NEW), "other": unit(b"other", NEW)})
    assert await new.remove(["digest"]) == 2
    for each in caches:
        gone, kept = await each.get(["digest", "other"])
        assert gone is None
        assert kept is not None
        await each.close()
