"""Fit the model that the gallery benchmark draws `modelled` faces from.

    python -m tests.load.fit_embeddings --lfw-dir DIR --out tests/load/embedding_model.npz

Pictures go through the serving code as a request would: decoder, detector, alignment, shipped student. What is written
are moments, and a JSON file beside them that says how they were made and how well they fit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from model_training.bench.serving import serving_embed
from model_training.protocols.density import EmbeddingModel, Vectors, fitted
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork
from tests.load.drawing import Modelled, Rows

_MODELS = Path(__file__).parent.parent.parent / "service" / "models"
_MODEL = Path(__file__).with_name("embedding_model.npz")
_PERCENTILES = (0.1, 1, 10, 50, 90, 99, 99.9)


def chosen(lfw_dir: Path, most: int, seed: int) -> list[tuple[int, Path]]:
    """Person number and picture of persons with two pictures or more, whole persons until there are `most`."""
    folders = [folder for folder in sorted(lfw_dir.iterdir()) if len(list(folder.glob("*.jpg"))) >= 2]
    pictures: list[tuple[int, Path]] = []
    for person in np.random.default_rng(seed).permutation(len(folders)).tolist():
        theirs = sorted(folders[person].glob("*.jpg"))
        if len(pictures) + len(theirs) <= most:
            pictures.extend((person, picture) for picture in theirs)
    return pictures


def score_percentiles(embeddings: Vectors, labels: NDArray[np.int64], rng: np.random.Generator) -> dict[str, object]:
    """Cosines between faces of one person (one pair a person) and between faces of different ones."""
    order = rng.permutation(len(labels))
    embeddings, labels = embeddings[order], labels[order]
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    _, second = np.unique(labels[rest], return_index=True)
    mates = rest[second]
    own = dict(zip(labels[first].tolist(), first.tolist(), strict=True))
    genuine = np.array([embeddings[face] @ embeddings[own[labels[face]]] for face in mates.tolist()])
    scores = embeddings[first] @ embeddings[first].T
    impostor = scores[np.triu_indices(len(first), 1)]
    return {
        name: {
            "mean": round(float(found.mean()), 4),
            "std": round(float(found.std()), 4),
            **{f"p{p:g}": round(float(np.percentile(found, p)), 4) for p in _PERCENTILES},
        }
        for name, found in (("one_person", genuine), ("two_persons", impostor))
    }


def main(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")] = _MODEL,
    most: Annotated[int, typer.Option(min=100, help="Pictures to use at most.")] = 4_000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Embed LFW pictures of persons with two or more, fit, and write moments and a description."""
    cv2.setNumThreads(1)
    network = OnnxNetwork(_MODELS / "student.onnx", threads=threads)
    embed = serving_embed(YuNetDetector(_MODELS / "detector.onnx"), network)
    labels, embeddings = [], []
    pictures = chosen(lfw_dir, most, seed)
    for person, picture in track(pictures, description="embedding"):
        found = embed(picture)
        if found is not None:
            labels.append(person)
            embeddings.append(found)
    rows, persons = np.stack(embeddings), np.array(labels)
    fitted(rows, persons).save(out)
    model = EmbeddingModel.load(out)
    drawn = Rows(Modelled(model), len(rows), seed=seed)
    described = {
        "what": "mean, covariances between and within persons, unevenness of faces; float32, no single embedding",
        "command": "python -m tests.load.fit_embeddings --lfw-dir DIR --out tests/load/embedding_model.npz",
        "network": network.manifest.name,
        "space_id": network.space_id,
        "data": "Labeled Faces in the Wild, persons with two pictures or more, whole persons drawn at random",
        "pictures": len(pictures),
        "pictures_without_face": len(pictures) - len(rows),
        "persons": len(np.unique(persons)),
        "seed": seed,
        "estimator": "one-way analysis of variance, negative eigenvalues of the between-person covariance set to 0",
        "trace_between": round(float(np.trace(model.between)), 4),
        "trace_within": round(float(np.trace(model.within)), 4),
        "unevenness": round(float(model.unevenness), 4),
        "mean_length": round(float(np.linalg.norm(model.mean)), 4),
        "dimensions_of_90_percent_between": _needed(model.between, 0.9),
        "dimensions_of_90_percent_within": _needed(model.within, 0.9),
        "cosines_of_the_pictures": score_percentiles(rows, persons, np.random.default_rng(seed)),
        "cosines_of_drawn_faces": score_percentiles(
            drawn.sample(len(rows)), np.arange(len(rows)) // Modelled.faces_a_person, np.random.default_rng(seed)
        ),
    }
    out.with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")
    typer.echo(json.dumps(described, indent=2))


def _needed(covariance: Vectors, share: float) -> int:
    """Principal axes that hold this share of a covariance."""
    values = np.sort(np.linalg.eigvalsh(covariance.astype(np.float64)))[::-1]
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share)) + 1


if __name__ == "__main__":
    typer.run(main)
