"""Verification on LFW through a running service: what a caller gets, not what its network could do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from model_training.protocols.metrics import fold_accuracy
from model_training.protocols.pairs import PairList, read_lfw_pairs
from tests.load.peers.services import Compared, Running, Vector
from tests.load.service.pictures import squared

_CALLERS = 4
# Below every similarity that two faces may have: a picture without a face is nobody's mate.
_NONE_FOUND = -10.0


def some_of_each_fold(pairs: PairList, of_a_kind: int) -> PairList:
    """The first `of_a_kind` pairs of one person and of two of each fold, which lists the former first."""
    kept = []
    size = len(pairs.pairs) // pairs.folds
    for start in range(0, len(pairs.pairs), size):
        fold = pairs.pairs[start : start + size]
        for same in (True, False):
            kept += [pair for pair in fold if pair.same is same][:of_a_kind]
    return PairList(kept, pairs.folds, pairs.person)


def verified(compared: Compared, running: Running, lfw_dir: Path, pairs_file: Path, of_a_kind: int) -> dict[str, Any]:
    """Accuracy over the folds in percent, on pictures as in the load, and pictures without a face."""
    pairs = some_of_each_fold(read_lfw_pairs(pairs_file, lfw_dir), of_a_kind)
    pictures = pairs.pictures
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=120) as client,
        ThreadPoolExecutor(_CALLERS) as pool,
    ):
        found = pool.map(lambda picture: compared.embed(client, squared(Path(str(picture)))), pictures)
        vectors = dict(zip(pictures, tqdm(found, total=len(pictures), desc=compared.title, leave=False), strict=True))

    def score(first: Vector | None, second: Vector | None) -> float:
        return _NONE_FOUND if first is None or second is None else compared.similarity(first, second)

    scores = np.array([score(vectors[pair.first], vectors[pair.second]) for pair in pairs.pairs])
    folds = fold_accuracy(scores, np.array([pair.same for pair in pairs.pairs]), pairs.folds)
    return {
        "accuracy_percent": round(100 * folds.mean, 2),
        "std_percent": round(100 * folds.std, 2),
        "pairs": len(pairs.pairs),
        "pictures": len(pictures),
        "pictures_without_face": sum(vector is None for vector in vectors.values()),
    }
