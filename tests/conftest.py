from __future__ import annotations

import pytest

from tests.redis_fixture import redis_server  # noqa: F401


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
