"""What the two services of our making have in common: routes, and a NumPy gallery. It runs in the peers' environment,
and so imports nothing of this project.
"""

from __future__ import annotations

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
    stored = np.load(os.environ[_GALLERY], allow_pickle=False)
    names, gallery = stored["names"].tolist(), stored["embeddings"]
    app = FastAPI()

    def analysed(picture: UploadFile) -> Analysed:
        found = analyse(picture.file.read())
        if not found.faces:
            raise HTTPException(422, "no face")
        return found

    @app.get("/ready")
    def ready() -> dict[str, int]:
        return {"faces": len(names)}

    @app.post("/identify")
    def identify(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        picture = analysed(image)
        faces = []
        for face in picture.faces:
            scores = compare(gallery, face.embedding)
            best = int(scores.argmax())
            known = bool(scores[best] >= threshold)
            faces.append(
                {**_boxed(face), "first": names[best], "similarity": float(scores[best]),
                 "person_id": names[best] if known else None}
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


def serve(
    app: str, analyse: Callable[[bytes], Analysed], *, port: int, workers: int, enrolled: Path, keep: Path
) -> None:
    """Embed the first face of every picture of a folder of people, leave them in `keep`, and serve `app`."""
    names, vectors = [], []
    for picture in sorted(enrolled.glob("*/*.jpg")):
        faces = analyse(picture.read_bytes()).faces
        if faces:
            names.append(picture.parent.name)
            vectors.append(faces[0].embedding)
    np.savez(keep, names=np.array(names), embeddings=np.stack(vectors).astype(np.float32))
    os.environ[_GALLERY] = str(keep)
    # The file of a service is not in a package for its workers.
    sys.path.insert(0, str(Path(__file__).parent))
    uvicorn.run(
        app, factory=True, port=port, workers=workers, log_level="warning", access_log=False,
        # A worker that is busy in dlib, which holds the interpreter, does not answer its supervisor.
        timeout_worker_healthcheck=60,
    )  # fmt: skip


def _boxed(face: Found) -> dict[str, Any]:
    return {"box": dict(zip(("x", "y", "width", "height"), map(float, face.box), strict=True))}
