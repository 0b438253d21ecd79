"""The model card: what the manifests say, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.contract import ModelManifest

CARD = "MODEL_CARD.md"


def write_card(folder: Path) -> Path:
    """One model card for the models of a folder, made from their manifests alone."""
    card = folder / CARD
    card.write_text(card_text(folder))
    return card


def card_text(folder: Path) -> str:
    """The card in Markdown."""
    lines = ["# Model card", "", "Made by `python -m model_training card` from the manifests beside this file.", ""]
    for path in sorted(folder.glob("*.json")):
        lines += [*_section(ModelManifest.model_validate_json(path.read_bytes())), ""]
    return "\n".join(lines)


def _section(manifest: ModelManifest) -> Iterator[str]:
    yield from (f"## {manifest.file}: {manifest.name}", "")
    yield f"- role: {manifest.role}; {manifest.parameters:,} parameters, {manifest.size_bytes / 1e6:.2f} MB"
    yield f"- teacher: {manifest.teacher}"
    yield from (f"- data: {entry}" for entry in manifest.data)
    yield f"- licence: {manifest.licence}"
    yield f"- SHA-256: `{manifest.sha256}`"
    if manifest.space_id is not None:
        yield f"- embedding space: `{manifest.space_id}`, {manifest.dimension} dimensions"
    if manifest.impostor_scores is not None:
        scores = manifest.impostor_scores
        yield (
            f"- impostor cosines: mean {scores.mean:.4f}, deviation {scores.std:.4f}"
            f" over {scores.comparisons:,} comparisons ({scores.source})"
        )
        if scores.tail is not None:
            tail = scores.tail
            yield (
                f"- their highest {tail.rate:.1%}, {tail.exceedances:,} beyond {tail.start:.3f}: generalised Pareto,"
                f" shape {tail.shape:.3f}, scale {tail.scale:.4f},"
                f" off by {tail.deviation:.3f} at most (Kolmogorov-Smirnov)"
            )
    if manifest.mate_scores is not None:
        mates = manifest.mate_scores
        yield f"- mate cosines: mean {mates.mean:.4f}, deviation {mates.std:.4f} over {mates.comparisons:,} comparisons"
    for title, values in (("Training", manifest.training), ("Measured", manifest.metrics)):
        yield from ("", f"### {title}", "", "| | |", "|---|---|")
        yield from (f"| {name} | {value} |" for name, value in _flat(values))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """A row a figure, those of a group under its name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key} / ")
        else:
            yield f"{above}{key}", json.dumps(value) if isinstance(value, list) else str(value)
