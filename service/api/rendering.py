"""JSON answers, encoded by orjson: an answer of many embeddings is mostly floats."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import JSONResponse


class FastJSONResponse(JSONResponse):
    """JSON response that also takes NumPy arrays and datetimes."""

    def render(self, content: Any) -> bytes:
        """UTF-8 JSON."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
