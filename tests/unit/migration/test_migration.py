"""The switch itself, in one process with real models: whole or not at all, and nothing lost in between."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.bootstrap import Container, build
from service.domain import InvalidRequest, MigrationConflict, NewFace, SpaceMismatch, StorageUnusable
from service.gallery.active import read_places
from service.migration import Migration, migration
from service.settings import Settings
from tests.second_model import second_model
from tests.unit.migration.common import person

pytestmark = pytest.mark.anyio

PERSONS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", queue_deadline_s=0.2, _env_file=None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return second_model(tmp_path / "models")


def noise(seed: int, dimension: int) -> NewFace:
    crop = np.random.default_rng(seed).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    vector = np.random.default_rng(seed).normal(size=dimension)
    embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
    digest = hashlib.blake2b(crop.tobytes(), digest_size=20).hexdigest()
    return NewFace(f"f{seed}", embedding, None, digest, crop=cv2.imencode(".png", crop)[1].tobytes())


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Container]:
    async with AsyncExitStack() as stack:
        container = await build(settings, stack)
        dimension = container.identity.dimension
        records = [person(f"p{seed}", noise(seed, dimension)) for seed in range(PERSONS)]
        await container.gallery.import_persons("g", records)
        yield container


def of(container: Container) -> Migration[Container]:
    assert container.migration is not None
    return container.migration


async def ready(container: Container, model: Path) -> Migration[Container]:
    change = of(container)
    await change.start(model)
    for _ in range(600):
        if change.status().state not in ("embedding", "comparing"):
            break
        await asyncio.sleep(0.05)
    assert change.status().state == "ready", change.status().problem
    return change


async def test_a_switch_that_cannot_be_written_changes_nothing(
    served: Container, settings: Settings, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = await ready(served, model)
    adopted: list[Container] = []
    change.on_switch(adopted.append)
    write, calls = migration.write_places, []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise StorageUnusable("the disk is gone")
        write(*arguments)

    monkeypatch.setattr(migration, "write_places", failing)
    before = read_places(settings.data_dir, settings.embedder_path)
    with pytest.raises(StorageUnusable):
        await change.switch()
    assert adopted == []
    assert change.status().state == "ready"
    assert read_places(settings.data_dir, settings.embedder_path) == before
    # The gate is open again, and a later switch has what came meanwhile.
    await served.gallery.import_persons("g", [person("late", noise(99, served.identity.dimension))])
    status = await change.switch()
    (now,) = adopted
    assert (status.state, now.identity.space_id) == ("switched", status.active.space_id)
    assert (await now.gallery.summary("g")).faces == PERSONS + 1


async def test_a_caller_who_goes_away_does_not_break_a_switch_in_two(
    served: Container, settings: Settings, model: Path
) -> None:
    change = await ready(served, model)
    call = asyncio.create_task(change.switch())
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # Whoever asks next waits for it.
    with pytest.raises(MigrationConflict):
        await change.switch()
    assert change.status().state == "switched"
    assert read_places(settings.data_dir, settings.embedder_path).active == change.status().active


async def test_only_steps_that_are_due_are_taken(served: Container, settings: Settings, model: Path) -> None:
    change = of(served)
    for step in (change.switch, change.back, change.abandon):
        with pytest.raises(MigrationConflict):
            await step()
    with pytest.raises(InvalidRequest, match="is served"):
        await change.start(settings.embedder_path)
    await ready(served, model)
    with pytest.raises(MigrationConflict):
        await change.start(model)
    with pytest.raises(MigrationConflict):
        await change.back()
    assert (await change.abandon()).state == "idle"
    assert list((settings.data_dir / "spaces").iterdir()) == []


async def test_a_folder_that_cannot_be_removed_is_told_of_until_it_is(
    served: Container, settings: Settings, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = await ready(served, model)
    with monkeypatch.context() as patched:

        def failing(*_: Any) -> None:
            raise StorageUnusable("it cannot be removed")

        patched.setattr(migration, "remove_place", failing)
        with pytest.raises(StorageUnusable):
            await change.abandon()
    assert (change.status().state, change.status().problem) == ("failed", migration.REMAINS)
    with pytest.raises(MigrationConflict):
        await change.start(model)
    # Changes are not held back for that.
    await served.gallery.forget_person("g", "p1")
    assert (await change.abandon()).state == "idle"
    assert list((settings.data_dir / "spaces").iterdir()) == []


@pytest.fixture
def damaged(model: Path) -> Path:
    model.write_bytes(model.read_bytes()[:-1])
    return model


async def test_a_model_that_is_damaged_is_refused(served: Container, damaged: Path) -> None:
    with pytest.raises(InvalidRequest, match="not the file that its manifest describes"):
        await of(served).start(damaged)
    assert of(served).status().other is None


async def test_a_network_that_comes_along_is_named_without_its_folder(served: Container) -> None:
    change = await ready(served, Path("student-int8.onnx"))
    other = change.status().other
    assert other is not None and other.embedder.is_absolute() and other.embedder.name == "student-int8.onnx"


async def test_a_restart_with_a_third_model_is_refused(settings: Settings, model: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        container = await build(settings, stack)
        await container.gallery.enrol("g", "ann", None, {}, [])
        change = await ready(container, model)
        await change.switch()
    third = second_model(tmp_path / "models", seed=3)
    async with AsyncExitStack() as stack:
        with pytest.raises(SpaceMismatch):
            await build(settings.model_copy(update={"embedder_path": third}), stack)
    async with AsyncExitStack() as stack:
        again = await build(settings, stack)
        assert again.identity.space_id == read_places(settings.data_dir, model).active.space_id
        assert of(again).status().state == "switched"
