"""Which pictures there are, and which of them may train: those of nobody whom a test set names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def pictures_in(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURE_ENDINGS)


def people_in_pairs(pairs_file: Path) -> set[str]:
    """Names that a pairs file in LFW's format mentions."""
    rows = [line.split() for line in pairs_file.read_text().splitlines()[1:] if line.strip()]
    return {name for row in rows for name in ([row[0]] if len(row) == 3 else [row[0], row[2]])}


def without_people(pictures: Iterable[Path], names: set[str]) -> list[Path]:
    """Pictures whose folder names nobody in `names`: what keeps test identities out of training."""
    return [path for path in pictures if path.parent.name not in names]
