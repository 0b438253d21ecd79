"""JSON answers, encoded by orjson: an answer of many embeddings is mostly floats."""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from service.telemetry import STAGE_SECONDS


class FastJSONResponse(JSONResponse):
    """JSON response that also takes NumPy arrays and datetimes."""

    def render(self, content: Any) -> bytes:
        """UTF-8 JSON."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def rendered(answer: BaseModel) -> Response:
    """An answer as JSON, written by pydantic itself without a copy of it as dictionaries."""
    started = time.perf_counter()
    content = answer.model_dump_json()
    STAGE_SECONDS.labels("serialise").observe(time.perf_counter() - started)
    return Response(content, media_type="application/json")
