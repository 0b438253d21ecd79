"""What the service's own metrics say of a stretch of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Every sample of a Prometheus exposition, by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _grown(before: Samples, after: Samples, name: str) -> dict[str, float]:
    """By how much the samples of a name grew, by the values of their labels."""
    return {
        " ".join(value for _, value in labels): value - before.get((found, labels), 0.0)
        for (found, labels), value in after.items()
        if found == name
    }


def between(earlier: str, later: str) -> dict[str, Any]:
    """Cache lookups by outcome, faces a run of the network, milliseconds a stage, refusals, agreement with exact."""
    before, after = samples(earlier), samples(later)
    batches = _grown(before, after, "shrinkface_embed_batch_size_count").get("", 0.0)
    faces = _grown(before, after, "shrinkface_embed_batch_size_sum").get("", 0.0)
    up_to = _grown(before, after, "shrinkface_embed_batch_size_bucket")
    sizes, below = {}, 0.0
    for bound in sorted(up_to, key=float):
        if up_to[bound] > below:
            sizes[f"up to {float(bound):g}"] = round((up_to[bound] - below) / batches, 4)
        below = up_to[bound]
    counts = _grown(before, after, "shrinkface_stage_seconds_count")
    seconds = _grown(before, after, "shrinkface_stage_seconds_sum")
    agreement = after.get(("shrinkface_gallery_recall_vs_exact", ()))
    return {
        "cache_lookups": _whole(_grown(before, after, "shrinkface_cache_lookups_total")),
        "picture_lookups": _whole(_grown(before, after, "shrinkface_cache_picture_lookups_total")),
        "cache_trouble": int(_grown(before, after, "shrinkface_cache_trouble_total").get("", 0)),
        "batches": {"mean": round(faces / batches, 2) if batches else None, "shares": sizes},
        "stages_ms": {stage: round(1e3 * seconds[stage] / n, 2) for stage, n in sorted(counts.items()) if n},
        "turned_away": _whole(_grown(before, after, "shrinkface_turned_away_total")),
        "agreement_with_exact": agreement,
        "gallery_faces": int(sum(_grown({}, after, "shrinkface_gallery_faces").values())),
    }


def _whole(grown: dict[str, float]) -> dict[str, int]:
    return {label: int(value) for label, value in sorted(grown.items()) if value}
