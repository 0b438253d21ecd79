"""Metrics and logs. Neither ever carries a picture, an embedding or a name."""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("shrinkface_requests_total", "Requests by route and status", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("shrinkface_request_seconds", "Wall time of requests", ["route"], buckets=_LATENCY_BUCKETS)
REQUESTS_IN_PROGRESS = Gauge("shrinkface_requests_in_progress", "Requests taken on and not yet answered")
BODIES_BYTES = Gauge("shrinkface_bodies_bytes", "Bytes of request bodies in memory")
CONNECTIONS = Gauge("shrinkface_connections", "Open connections")
TURNED_AWAY = Counter(
    "shrinkface_turned_away_total",
    "Connections closed and requests refused for a bound on number, size or time",
    ["why"],
)
STAGE_SECONDS = Histogram(
    "shrinkface_stage_seconds", "Wall time of stages of a request", ["stage"], buckets=_LATENCY_BUCKETS
)
FACES = Counter("shrinkface_faces_total", "Faces found in pictures", ["use"])
DECISIONS = Counter("shrinkface_decisions_total", "Open-set decisions", ["decision"])
BATCH_SIZE = Histogram(
    "shrinkface_embed_batch_size", "Faces in one run of the network", buckets=(1, 2, 4, 8, 16, 32, 64)
)
ATTRIBUTE_BATCH_SIZE = Histogram(
    "shrinkface_attribute_batch_size",
    "Faces in one run of an attribute network",
    ["network"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
CACHE_LOOKUPS = Counter("shrinkface_cache_lookups_total", "Embedding cache lookups", ["outcome"])
PICTURE_LOOKUPS = Counter(
    "shrinkface_cache_picture_lookups_total",
    "Lookups of whole pictures; error: no answer in time, or none that is one",
    ["outcome"],
)
CACHE_TROUBLE = Counter("shrinkface_cache_trouble_total", "Cache calls given up for a timeout, an error or garbage")
GALLERY_FACES = Gauge("shrinkface_gallery_faces", "Faces enrolled", ["gallery"])
GALLERY_RECALL = Gauge(
    "shrinkface_gallery_recall_vs_exact",
    "Share of the last 1,000 sampled searches of large galleries whose first face an exact search agrees with",
)
# Until a search has been sampled there is nothing that could have been missed.
GALLERY_RECALL.set(1)


def configure_logging(level: str, style: str) -> None:
    """Send structured logs to standard error, as JSON lines or for reading in a terminal.

    Args:
        level: debug, info, warning or error.
        style: json or console.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    # It warns of every malformed body, and quotes from it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
