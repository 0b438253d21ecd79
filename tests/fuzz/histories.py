"""Histories of a gallery, made up by Hypothesis: what the real one answers is what a simple one answers.

The real one is opened anew in between, after an orderly end and after a kill; time passes only when a step says so, and
the folder is audited whenever nobody uses it. `python -m tests.fuzz.histories --seconds 600` goes on for a while.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.domain import (
    UNCHANGED,
    DomainError,
    GallerySettings,
    NewFace,
    PersonChange,
    PersonRecord,
    Removal,
)
from service.gallery.audit import audit
from service.gallery.embedded import EmbeddedGallery
from service.gallery.sieve import FEWEST_ROWS
from service.ports import Gallery
from tests.contract.reference import ReferenceGallery, ReferenceState

DIMENSION, SPACE = 16, "sf1-histories"
_BASE_FACES_EACH = 10
_START = datetime(2030, 1, 1, tzinfo=UTC)


class _Clock:
    """The time that both galleries see."""

    now = _START


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return _Clock.now.astimezone(tz)


def _direction(number: int) -> np.ndarray:
    """One of few unit vectors, so that there are ties."""
    seed = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


GALLERIES = st.sampled_from(["g", "h"])
PERSONS = st.sampled_from(["ann", "bob", "eve", "zoe"])
FACE_IDS = st.integers(0, 14).map("f{}".format)
DIRECTIONS = st.integers(0, 9).map(_direction)
# From the moment of the step on, in seconds; a face may come too late.
EXPIRIES = st.sampled_from([None, -5, 5, 5, 60])
FACES = st.lists(st.tuples(FACE_IDS, DIRECTIONS, EXPIRIES, st.booleans()), max_size=3)
NAMES = st.sampled_from([None, "Ann", "Zoë"])
METADATA = st.sampled_from([{}, {"a": 1}, {"a": {"b": [None, "ü"]}}])

Given = Sequence[tuple[str, np.ndarray, int | None, bool]]


class Histories(RuleBasedStateMachine):
    """Searches are exact: the gallery is small."""

    exact_up_to = 20_000
    base_faces = 0

    def __init__(self) -> None:
        super().__init__()
        _Clock.now = _START
        self._patches = [
            mock.patch("service.gallery.records.datetime", _Datetime),
            mock.patch("tests.contract.reference.datetime", _Datetime),
        ]
        for patch in self._patches:
            patch.start()
        self._home = Path(tempfile.mkdtemp(prefix="histories-", dir=_memory()))
        self._folder = self._home / "0"
        self._kills = 0
        self._loop = asyncio.new_event_loop()
        self._simple = ReferenceGallery(ReferenceState(), DIMENSION)
        self._real = self._opened()

    @initialize()
    def begin(self) -> None:
        """Enough faces, where there are to be many, that searches are sifted and snapshots written."""
        records = [
            PersonRecord(
                f"base{person}",
                None,
                {},
                tuple(
                    NewFace(f"b{person}-{face}", _direction(1_000 + person * _BASE_FACES_EACH + face), None, f"d{face}")
                    for face in range(_BASE_FACES_EACH)
                ),
            )
            for person in range(self.base_faces // _BASE_FACES_EACH)
        ]
        self._both(lambda gallery: gallery.import_persons("g", records))

    @rule(gallery=GALLERIES, person=PERSONS, name=NAMES, metadata=METADATA, faces=FACES, extend=st.booleans())
    def enrol(
        self, gallery: str, person: str, name: str | None, metadata: dict[str, Any], faces: Given, extend: bool
    ) -> None:
        new = self._faces(faces)
        self._both(lambda each: each.enrol(gallery, person, name, metadata, new, extend=extend))

    @rule(gallery=GALLERIES, people=st.lists(st.tuples(PERSONS, NAMES, FACES), max_size=4))
    def bring(self, gallery: str, people: list[tuple[str, str | None, Given]]) -> None:
        records = [PersonRecord(person, name, {}, tuple(self._faces(faces))) for person, name, faces in people]
        self._both(lambda each: each.import_persons(gallery, records))

    @rule(gallery=GALLERIES, person=PERSONS, name=NAMES | st.just(UNCHANGED), metadata=METADATA | st.just(UNCHANGED))
    def update(self, gallery: str, person: str, name: Any, metadata: Any) -> None:
        self._both(lambda each: each.update_person(gallery, person, PersonChange(name, metadata)))

    @rule(gallery=GALLERIES, person=PERSONS)
    def forget_person(self, gallery: str, person: str) -> None:
        self._both(lambda each: each.forget_person(gallery, person))

    @rule(gallery=GALLERIES, person=PERSONS, face=FACE_IDS)
    def forget_face(self, gallery: str, person: str, face: str) -> None:
        self._both(lambda each: each.forget_face(gallery, person, face))

    @precondition(lambda self: self.base_faces)
    @rule(first=st.integers(0, 60), count=st.sampled_from([1, 1, 2, 2, 30]))
    def forget_many(self, first: int, count: int) -> None:
        """Of the many at the beginning: rows are compacted, a sieve may go."""
        for person in range(first, first + count):
            self._both(lambda each, person=person: each.forget_person("g", f"base{person}"))

    @rule(gallery=GALLERIES, fpir=st.sampled_from([None, 0.1]), crops=st.booleans())
    def configure(self, gallery: str, fpir: float | None, crops: bool) -> None:
        wanted = GallerySettings(target_fpir=fpir, keep_crops=crops)
        self._both(lambda each: each.configure_gallery(gallery, wanted))

    @rule(gallery=GALLERIES)
    def create(self, gallery: str) -> None:
        self._both(lambda each: each.create_gallery(gallery, GallerySettings()))

    @rule(gallery=st.just("h"))
    def drop(self, gallery: str) -> None:
        self._both(lambda each: each.drop_gallery(gallery))

    @rule(seconds=st.sampled_from([1, 5, 60]), searched=st.booleans())
    def time_passes(self, seconds: int, searched: bool) -> None:
        _Clock.now += timedelta(seconds=seconds)
        if searched:
            # It is searches that notice what has expired, long before it is erased.
            for name in ("g", "h"):
                self._both(lambda each, name=name: each.search(name, _direction(0)[np.newaxis], 2, exact=True))

    @rule()
    def erase_expired(self) -> None:
        async def erased(gallery: Gallery) -> list[Any]:
            return sorted((e.gallery, e.person_id, _plain(e.removal)) for e in await gallery.erase_expired())

        self._both(erased)

    @rule(gallery=GALLERIES, probes=st.lists(DIRECTIONS, min_size=1, max_size=3), top_k=st.integers(1, 5))
    def search(self, gallery: str, probes: list[np.ndarray], top_k: int) -> None:
        self._both(lambda each: each.search(gallery, np.stack(probes), top_k, exact=True))
        expected = self._run(self._simple.search(gallery, np.stack(probes), top_k))
        found = self._run(self._real.search(gallery, np.stack(probes), top_k))
        for simple, real in zip(expected, found, strict=True):
            assert real.gallery_size == simple.gallery_size
            # A sifted search may miss somebody; the probes are faces that may be enrolled, and those it never misses.
            assert len(real.matches) == len(simple.matches)
            if simple.matches and simple.matches[0].similarity > 0.999:
                assert real.matches[0].person_id == simple.matches[0].person_id

    @rule(gallery=GALLERIES, probe=DIRECTIONS, among=st.lists(PERSONS, max_size=3))
    def search_among(self, gallery: str, probe: np.ndarray, among: list[str]) -> None:
        self._both(lambda each: each.search(gallery, probe[np.newaxis], 3, among=among))

    @rule(gallery=GALLERIES, person=PERSONS, probe=DIRECTIONS)
    def compare(self, gallery: str, person: str, probe: np.ndarray) -> None:
        self._both(lambda each: each.similarities_to(gallery, person, probe))

    @rule(gallery=GALLERIES, face=FACE_IDS)
    def owner(self, gallery: str, face: str) -> None:
        self._both(lambda each: each.owner_of(gallery, face))

    @rule(gallery=GALLERIES, person=PERSONS, face=FACE_IDS)
    def crop(self, gallery: str, person: str, face: str) -> None:
        self._both(lambda each: each.crop(gallery, person, face))

    @rule(source=GALLERIES, other=GALLERIES)
    def copy(self, source: str, other: str) -> None:
        """What is exported can be imported."""

        async def copied(gallery: Gallery) -> list[Any]:
            exported = await gallery.export_persons(source, after=None, limit=1_000)
            records = [record for record in exported if not record.person_id.startswith("base")]
            outcomes = await gallery.import_persons(other, records)
            return [*map(_plain, records), *map(_plain, outcomes)]

        self._both(copied)

    @rule()
    def snapshot(self) -> None:
        """Put the indexes in order and write what there is to be written."""
        indexes = self._real._indexes
        for index in list(indexes._indexes.values()):
            indexes._upkeep.submit(index.tend).result(60)
            indexes._upkeep.submit(index.save).result(60)

    @rule()
    def restart(self) -> None:
        self._run(self._real.close())
        self._check_folder(self._folder)
        self._real = self._opened()

    @rule()
    def kill(self) -> None:
        """Go on with the files as they lie there at this moment."""
        self._real._indexes._upkeep.submit(lambda: None).result(60)
        self._kills += 1
        left, self._folder = self._folder, self._home / str(self._kills)
        shutil.copytree(left, self._folder)
        self._run(self._real.close())
        shutil.rmtree(left)
        self._check_folder(self._folder)
        self._real = self._opened()

    @invariant()
    def all_that_is_stored_is_the_same(self) -> None:
        self._both(lambda each: each.galleries())
        for name in ("g", "h"):
            self._both(lambda each, name=name: each.persons(name, after=None, limit=1_000))
        for person in ("ann", "zoe"):
            self._both(lambda each, person=person: each.faces("g", person))
            self._both(lambda each, person=person: each.person_record("g", person))

    def teardown(self) -> None:
        try:
            self._run(self._real.close())
            self._check_folder(self._folder)
        finally:
            self._loop.close()
            for patch in self._patches:
                patch.stop()
            shutil.rmtree(self._home, ignore_errors=True)

    def _faces(self, given: Given) -> list[NewFace]:
        return [
            NewFace(
                face_id,
                direction,
                None,
                crop_digest=f"digest-of-{face_id}",
                expires_at=None if after_s is None else _Clock.now + timedelta(seconds=after_s),
                crop=b"png" if with_crop else None,
            )
            for face_id, direction, after_s, with_crop in given
        ]

    def _opened(self) -> EmbeddedGallery:
        return EmbeddedGallery.open(
            self._folder, space_id=SPACE, dimension=DIMENSION, threads=1, exact_up_to=self.exact_up_to
        )

    def _check_folder(self, folder: Path) -> None:
        assert audit(folder).findings == ()

    def _both(self, step: Callable[[Gallery], Awaitable[Any]]) -> None:
        expected, got = (self._run(_outcome(step, each)) for each in (self._simple, self._real))
        assert got == expected

    def _run(self, awaited: Any) -> Any:
        return self._loop.run_until_complete(awaited)


class SiftedHistories(Histories):
    """The gallery is so large that searches are sifted and the index lives in files."""

    exact_up_to = 0
    base_faces = FEWEST_ROWS + 60


async def _outcome(step: Callable[[Gallery], Awaitable[Any]], gallery: Gallery) -> Any:
    try:
        return _plain(await step(gallery))
    except DomainError as error:
        return error.code


def _plain(value: Any) -> Any:
    """In a form that can be compared: without revisions, scores to a float's accuracy, arrays as bytes."""
    match value:
        case Removal():
            return [value.persons, value.faces, value.index_entries, value.crops, sorted(value.crop_digests)]
        case DomainError():
            value = value.code
        case np.ndarray():
            value = value.tobytes()
        case float():
            value = round(value, 5)
        case dict():
            value = {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            value = [_plain(each) for each in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            value = [_plain(getattr(value, name)) for name in value.__dataclass_fields__ if name != "revision"]
    return value


def _memory() -> Path | None:
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    until = time.monotonic() + parser.parse_args().seconds
    database = DirectoryBasedExampleDatabase(Path(__file__).parents[2] / "runs" / "fuzz" / "histories")
    rounds = 0
    while time.monotonic() < until:
        for machine in (Histories, SiftedHistories):
            run_state_machine_as_test(machine, settings=_settings(examples=20, steps=60, database=database))
            rounds += 1
    print(f"histories: {rounds * 20} of up to 60 steps each, none of which the two galleries disagree about")


def _settings(*, examples: int, steps: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


if __name__ == "__main__":
    sys.exit(main())
