from __future__ import annotations

import pytest

from tests.milvus_fixture import milvus_server  # noqa: F401
from tests.redis_fixture import redis_server  # noqa: F401


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
