from __future__ import annotations

import pytest

from service.access import KeyFile
from tests.unit.access.common import Ticking


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "api-keys.json"


@pytest.fixture
def clock():
    return Ticking(1000.0)


@pytest.fixture
def key_file(path, clock):
    return KeyFile(path, clock=clock)
