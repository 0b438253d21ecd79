"""Milvus Lite: the server as a library, asked through its client as its authors show."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from pymilvus import DataType, MilvusClient

from model_training.protocols.density import Vectors
from tests.load.drawing import Rows
from tests.load.structures import SEARCH_EFFORTS, Found

_INSERTED_AT_ONCE = 5_000
_ASKED_AT_ONCE = 1_000
_TABLE = "faces"
_PATIENCE_S = 24 * 3_600


class MilvusLite:
    """A collection of numbered vectors.

    Its server runs on threads of this process, so that memory and cores are counted as for the others. The threads of
    FAISS inside it are what OMP_NUM_THREADS says. AUTOINDEX is FAISS's HNSW with 16 links, one graph for each segment.
    """

    def __init__(self, index_type: str) -> None:
        self._index_type = index_type
        self._folder = tempfile.TemporaryDirectory(prefix="gallery-bench-")
        self._client: MilvusClient | None = None
        self._effort = SEARCH_EFFORTS[0]
        self.efforts: tuple[int, ...] = SEARCH_EFFORTS if index_type in ("AUTOINDEX", "HNSW") else ()

    def build(self, rows: Rows, threads: int) -> None:
        """See `Structure`. Inserting and writing to disk count: without them there is nothing to index."""
        client = MilvusClient(str(Path(self._folder.name) / "gallery.db"))
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.dimension)
        client.create_collection(_TABLE, schema=schema)
        for start, faces in rows.chunks():
            for some in range(0, len(faces), _INSERTED_AT_ONCE):
                batch = faces[some : some + _INSERTED_AT_ONCE]
                client.insert(_TABLE, [{"id": start + some + row, "vector": face} for row, face in enumerate(batch)])
        client.flush(_TABLE, timeout=_PATIENCE_S)
        wanted = client.prepare_index_params()
        wanted.add_index("vector", index_type=self._index_type, metric_type="IP")
        client.create_index(_TABLE, wanted, timeout=_PATIENCE_S)
        client.load_collection(_TABLE, timeout=_PATIENCE_S)
        self._client = client

    def set_effort(self, effort: int) -> None:
        """See `Structure`."""
        self._effort = effort

    def search(self, probes: Vectors, k: int, threads: int) -> Found:
        """See `Structure`."""
        rows = np.full((len(probes), k), -1, dtype=np.int64)
        scores = np.full((len(probes), k), -1, dtype=np.float32)
        for start in range(0, len(probes), _ASKED_AT_ONCE):
            answers = self._client.search(
                _TABLE,
                list(probes[start : start + _ASKED_AT_ONCE]),
                limit=k,
                # Its default sends the vectors back as well.
                output_fields=["id"],
                search_params={"params": {"ef": self._effort}} if self.efforts else {},
                timeout=_PATIENCE_S,
            )
            for probe, hits in enumerate(answers, start):
                for place, hit in enumerate(hits):
                    rows[probe, place], scores[probe, place] = hit["id"], hit["distance"]
        return rows, scores

    def close(self) -> None:
        """See `Structure`."""
        if self._client is not None:
            self._client.close()
        self._folder.cleanup()
