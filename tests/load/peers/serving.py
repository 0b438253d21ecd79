"""What the two services of our making have in common: routes, and a NumPy gallery. It runs in the peers' environment,
and so imports nothing of this project.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.params import File

_GALLERY = "PEER_GALLERY"
_AT_ONCE = 65_536


class Found(NamedTuple):
    """A face: x, y, width and height in pixels, and its embedding (d,) float32."""

    box: tuple[float, float, float, float]
    embedding: np.ndarray


class Analysed(NamedTuple):
    """Width and height of a picture, and the faces in it."""

    width: int
    height: int
    faces: Sequence[Found]


# Similarities (n,) of an embedding (d,) to those of a gallery, (n, d); larger is closer.
Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def application(analyse: Callable[[bytes], Analysed], compare: Compare, threshold: float) -> FastAPI:
    """`/identify` and `/embeddings`, over the gallery that `serve` has left in a file.

    Routes are no coroutines, so that FastAPI runs them in its threads and the network runs beside the server.
    """
    people = Path(os.environ[_GALLERY])
    names = np.load(people, allow_pickle=False)["names"].tolist()
    # Mapped, so that the processes of a service share it.
    gallery = np.asarray(np.load(_matrix(people), mmap_mode="r"))
    app = FastAPI()

    def name_of(row: int) -> str:
        return names[row] if row < len(names) else f"drawn-{row - len(names):07d}"

    def analysed(picture: UploadFile) -> Analysed:
        found = analyse(picture.file.read())
        if not found.faces:
            raise HTTPException(422, "no face")
        return found

    @app.get("/ready")
    def ready() -> dict[str, int]:
        return {"faces": len(gallery)}

    @app.post("/identify")
    def identify(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        picture = analysed(image)
        faces = []
        for face in picture.faces:
            scores = compare(gallery, face.embedding)
            best = int(scores.argmax())
            known = bool(scores[best] >= threshold)
            faces.append(
                {**_boxed(face), "first": name_of(best), "similarity": float(scores[best]),
                 "person_id": name_of(best) if known else None}
            )  # fmt: skip
        return {"width": picture.width, "height": picture.height, "faces": faces}

    @app.post("/embeddings")
    def embeddings(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        picture = analysed(image)
        faces = [{**_boxed(face), "embedding": face.embedding.tolist()} for face in picture.faces]
        return {"width": picture.width, "height": picture.height, "faces": faces}

    return app


def central_first(faces: Sequence[Found], width: int, height: int) -> list[Found]:
    """Nearest to the middle first: the face that a picture of LFW is of."""

    def distance(face: Found) -> float:
        x, y, w, h = face.box
        return float((x + w / 2 - width / 2) ** 2 + (y + h / 2 - height / 2) ** 2)

    return sorted(faces, key=distance)


def arguments(*more: tuple[str, type]) -> argparse.Namespace:
    """What every service is told, and `more`: options that must be given, with their types."""
    parser = argparse.ArgumentParser()
    options: list[tuple[str, type]] = [("--port", int), ("--workers", int), ("--enrolled", Path), ("--keep", Path)]
    for name, kind in (*options, *more):
        parser.add_argument(name, type=kind, required=True)
    parser.add_argument("--drawn", type=Path, help="Of a gallery, (n, d) float32 of unit length, behind the people.")
    parser.add_argument("--raw", action="store_true", help="The network takes 0..255, not -1..1.")
    return parser.parse_args()


def serve(app: str, analyse: Callable[[bytes], Analysed], given: argparse.Namespace) -> None:
    """Embed the first face of every picture of a folder of people, add the drawn ones, and serve `app`.

    Both are left at `keep`, for workers and for the next start.
    """
    keep: Path = given.keep
    if not keep.exists():
        names, vectors = [], []
        for picture in sorted(given.enrolled.glob("*/*.jpg")):
            faces = analyse(picture.read_bytes()).faces
            if faces:
                names.append(picture.parent.name)
                vectors.append(faces[0].embedding)
        people = np.stack(vectors).astype(np.float32)
        _write_matrix(_matrix(keep), people, given.drawn)
        np.savez(keep, names=np.array(names))
    os.environ[_GALLERY] = str(keep)
    # The file of a service is not in a package for its workers.
    sys.path.insert(0, str(Path(__file__).parent))
    uvicorn.run(
        app, factory=True, port=given.port, workers=given.workers, log_level="warning", access_log=False,
        # A worker that is busy in dlib, which holds the interpreter, does not answer its supervisor.
        timeout_worker_healthcheck=60,
    )  # fmt: skip


def _matrix(keep: Path) -> Path:
    return keep.with_suffix(".npy")


def _write_matrix(path: Path, people: np.ndarray, drawn: Path | None) -> None:
    """People, and drawn rows made as long as the people's are on average: a network need not give unit vectors."""
    rows = np.empty((0, people.shape[1]), np.float32) if drawn is None else np.load(drawn, mmap_mode="r")
    shape = (len(people) + len(rows), people.shape[1])
    gallery = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    gallery[: len(people)] = people
    length = np.linalg.norm(people, axis=1).mean()
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        gallery[len(people) + start : len(people) + start + len(some)] = some * length
    gallery.flush()


def _boxed(face: Found) -> dict[str, Any]:
    return {"box": dict(zip(("x", "y", "width", "height"), map(float, face.box), strict=True))}
