"""That no adapter leaves out a call of its port: a protocol's own methods answer None to whoever inherits them."""

from __future__ import annotations

import inspect

import pytest

from service.gallery.embedded import EmbeddedGallery
from service.gallery.journal import StoreJournal
from service.gallery.milvus.gallery import MilvusGallery
from service.journal import LogJournal
from service.migration.guard import GuardedGallery
from service.migration.links import LinkedCache, ServedJournal
from service.ports import EmbeddingCache, Gallery, Journal
from tests.contract.reference import ReferenceGallery

ADAPTERS = [
    (Gallery, EmbeddedGallery),
    (Gallery, MilvusGallery),
    (Gallery, GuardedGallery),
    (Gallery, ReferenceGallery),
    (Journal, StoreJournal),
    (Journal, LogJournal),
    (Journal, ServedJournal),
    (EmbeddingCache, LinkedCache),
]


@pytest.mark.parametrize(("port", "adapter"), ADAPTERS)
def test_every_call_is_the_adapter_s_own(port: type, adapter: type) -> None:
    calls = [name for name, member in vars(port).items() if inspect.isfunction(member) and not name.startswith("_")]
    assert calls
    assert [name for name in calls if getattr(adapter, name) is getattr(port, name)] == []
