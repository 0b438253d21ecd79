"""A connection to Milvus: its few operations with their limits, and its errors in the domain's words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from service.domain import GalleryUnavailable

# "Strong" waits until all that was written before is visible (some 0.4 s on a server), "Eventually" waits for nothing.
Consistency = Literal["Strong", "Eventually"]

_KEYS_AT_ONCE = 1_000
_ROWS_AT_ONCE = 2_000


class Connection:
    """Safe to use from several threads. All methods block, and raise GalleryUnavailable when Milvus does not answer.

    Args:
        uri: `http://host:19530` of a server or cluster, or the path of a Milvus Lite file.
        token: `user:password` or an API key, empty where none is needed.
        timeout_s: for each call.
    """

    def __init__(self, uri: str, token: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        with _milvus_errors():
            self._client = MilvusClient(uri, token=token, timeout=timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        with _milvus_errors():
            self._client.close()

    def make(self, table: str, schema: Any, vector: str, index: dict[str, Any]) -> None:
        """Make a collection if it is not there, and have it loaded.

        Args:
            table: its name.
            schema: its fields.
            vector: the field that is indexed, by inner product.
            index: type and parameters.
        """
        with _milvus_errors():
            if not self._client.has_collection(table):
                wanted = self._client.prepare_index_params()
                wanted.add_index(vector, metric_type="IP", **index)
                try:
                    self._client.create_collection(
                        table, schema=schema, index_params=wanted, consistency_level="Strong", timeout=self._timeout_s
                    )
                except MilvusException:
                    # Another replica that starts at the same moment may have been faster.
                    if not self._client.has_collection(table):
                        raise
            self._client.load_collection(table, timeout=self._timeout_s)

    def query(
        self, table: str, condition: str, fields: list[str], consistency: Consistency, limit: int
    ) -> list[dict[str, Any]]:
        """Up to `limit` rows that a condition selects, in no order."""
        with _milvus_errors():
            return list(
                self._client.query(
                    table,
                    filter=condition,
                    output_fields=fields,
                    limit=limit,
                    consistency_level=consistency,
                    timeout=self._timeout_s,
                )
            )

    def rows_of_keys(
        self, table: str, field: str, keys: Iterable[str], fields: list[str], consistency: Consistency
    ) -> list[dict[str, Any]]:
        """Rows of primary keys, in no order."""
        rows: list[dict[str, Any]] = []
        for some in portions(keys):
            rows += self.query(table, f"{field} in {json.dumps(some)}", fields, consistency, len(some))
        return rows

    def count(self, table: str, condition: str) -> int:
        """How many rows a condition selects, of all that is acknowledged."""
        with _milvus_errors():
            rows = self._client.query(
                table,
                filter=condition,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return int(rows[0]["count(*)"])

    def nearest(
        self,
        table: str,
        probes: NDArray[np.float32],
        condition: str,
        fields: list[str],
        *,
        limit: int,
        effort: int,
        consistency: Consistency,
    ) -> list[list[dict[str, Any]]]:
        """For each of (n, d) probes up to `limit` rows by inner product with `embedding`, best first.

        Args:
            table, probes, condition, limit, consistency: what is searched.
            fields: of a hit's `entity`; its `distance` is the inner product.
            effort: how widely the graph is searched; at least `limit`.
        """
        with _milvus_errors():
            return list(
                self._client.search(
                    table,
                    data=[probe.tolist() for probe in probes],
                    anns_field="embedding",
                    filter=condition,
                    limit=limit,
                    output_fields=fields,
                    search_params={"metric_type": "IP", "params": {"ef": effort}},
                    consistency_level=consistency,
                    timeout=self._timeout_s,
                )
            )

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Store rows whose keys are free."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            with _milvus_errors():
                self._client.insert(table, list(rows[start : start + _ROWS_AT_ONCE]), timeout=self._timeout_s)

    def upsert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Store or replace rows."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            with _milvus_errors():
                self._client.upsert(table, list(rows[start : start + _ROWS_AT_ONCE]), timeout=self._timeout_s)

    def delete(self, table: str, keys: Iterable[str]) -> None:
        """Erase rows."""
        for some in portions(keys):
            with _milvus_errors():
                self._client.delete(table, ids=some, timeout=self._timeout_s)


def portions(keys: Iterable[str]) -> Iterator[list[str]]:
    """Keys, as many at once as a condition may name."""
    wanted = list(keys)
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        yield wanted[start : start + _KEYS_AT_ONCE]


@contextmanager
def _milvus_errors() -> Iterator[None]:
    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        raise GalleryUnavailable(f"Milvus does not answer as it should ({type(error).__name__})") from error
