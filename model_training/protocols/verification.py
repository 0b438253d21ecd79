"""Benchmark protocols over an `embed` callable. Nothing here chooses a checkpoint or a setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_training.protocols.embedding import Embed, Progress, ProtocolError
from model_training.protocols.metrics import FoldAccuracy, TooFewImpostors, fold_accuracy, tar_at_far


@dataclass(frozen=True)
class Pair:
    """Two pictures and whether they show one person."""

    first: Path
    second: Path
    same: bool


@dataclass(frozen=True)
class VerificationResult:
    """Outcome of a verification protocol.

    Attributes:
        accuracy: over the folds.
        tar: true accept rate by false accept rate, for the rates that the impostor count supports.
        missed: pictures in which no face was found; their pairs score -1 and count.
        pictures: distinct pictures in the pairs.
    """

    accuracy: FoldAccuracy
    tar: dict[float, float]
    missed: tuple[str, ...]
    pictures: int
    scores: NDArray[np.float64]
    same: NDArray[np.bool_]


def read_lfw_pairs(pairs_file: Path, folder: Path) -> tuple[list[Pair], int]:
    """Pairs and number of folds from a pairs file in LFW's format.

    Each fold lists its same-person pairs (`name i j`), then as many of different people (`name i other j`).

    Raises:
        ProtocolError: the file has another form, or a picture is missing.
    """
    lines = [line.split() for line in pairs_file.read_text().splitlines() if line.strip()]
    try:
        folds, per_fold = int(lines[0][0]), int(lines[0][1])
        pairs = [_pair(row, folder) for row in lines[1:]]
    except (IndexError, ValueError) as error:
        raise ProtocolError(f"{pairs_file} is not a pairs file in LFW's format") from error
    if len(pairs) != folds * per_fold * 2:
        raise ProtocolError(f"{pairs_file} announces {folds * per_fold * 2} pairs and holds {len(pairs)}")
    absent = next((path for pair in pairs for path in (pair.first, pair.second) if not path.is_file()), None)
    if absent is not None:
        raise ProtocolError(f"no picture at {absent}")
    return pairs, folds


def _pair(row: list[str], folder: Path) -> Pair:
    def picture(name: str, number: str) -> Path:
        return folder / name / f"{name}_{int(number):04d}.jpg"

    if len(row) == 3:
        return Pair(picture(row[0], row[1]), picture(row[0], row[2]), same=True)
    first, first_number, second, second_number = row
    return Pair(picture(first, first_number), picture(second, second_number), same=False)


def verification(
    pairs: list[Pair],
    folds: int,
    embed: Embed,
    *,
    fars: tuple[float, ...] = (1e-2, 1e-3),
    progress: Progress = iter,
) -> VerificationResult:
    """Cross-validated accuracy and TAR at fixed FARs.

    Args:
        embed: called once for each distinct picture.
        fars: rates to report; one that the impostor count cannot support is left out.
        progress: wraps the pictures, for a progress bar.
    """
    pictures = sorted({path for pair in pairs for path in (pair.first, pair.second)})
    embeddings = {path: embed(path) for path in progress(pictures)}
    scores = np.array([_score(embeddings[pair.first], embeddings[pair.second]) for pair in pairs])
    same = np.array([pair.same for pair in pairs])
    tar: dict[float, float] = {}
    for far in fars:
        try:
            tar[far] = tar_at_far(scores, same, far)[0]
        except TooFewImpostors:
            continue
    missed = tuple(path.name for path, vector in embeddings.items() if vector is None)
    return VerificationResult(fold_accuracy(scores, same, folds), tar, missed, len(pictures), scores, same)


def _score(first: NDArray[np.float32] | None, second: NDArray[np.float32] | None) -> float:
    if first is None or second is None:
        return -1.0
    return float(np.clip(np.dot(first, second), -1.0, 1.0))
