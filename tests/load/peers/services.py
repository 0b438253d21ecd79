"""The services that are compared, each started as its authors say, and how each gives an embedding."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.load.service.pictures import SIDE_PX
from tests.load.service.processes import answers_http, free_port, our_service, running
from tests.load.service.protocols import DEEPFACE, main_face

_HERE = Path(__file__).parent
# What DeepFace asks for by these names; the first two come with face_recognition_models.
_DLIB_WEIGHTS = ("dlib_face_recognition_resnet_model_v1.dat", "shape_predictor_5_face_landmarks.dat")
_YUNET_WEIGHTS = "face_detection_yunet_2023mar.onnx"
# To embed the gallery before it answers.
_START_S = 900.0

Vector = NDArray[np.float32]


class NotRunnable(RuntimeError):
    """A peer cannot be run here; why."""


@dataclass(frozen=True)
class Materials:
    """What the services are made of.

    Attributes:
        python: interpreter of the peers' environment.
        detector: YuNet's ONNX file. recognition: ONNX file of 112 x 112 faces; `raw` if it takes 0..255.
        enrolled: folder of `Name/picture.jpg`, the people of every gallery.
        drawn: .npy of as many faces as are behind them in every gallery, (n, d) float32 of unit length; None for none.
        data_dir: of our service, with the same people and faces.
        adopted: `recognition` as our service loads it, with a data folder of its own.
        kept: folder for what the peers' galleries are made of, for the next start.
    """

    python: Path
    detector: Path
    recognition: Path
    raw: bool
    enrolled: Path
    drawn: Path | None
    data_dir: Path
    adopted: tuple[Path, Path] | None
    kept: Path
    logs: Path


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    port: int
    process_id: int


@dataclass(frozen=True)
class Compared:
    """One service.

    Attributes:
        protocol: name in `tests.load.service.protocols.PROTOCOLS`.
        started: runs it.
        embeddings: path, fields and name of the picture's field of the call that gives embeddings.
        faces: of such an answer, faces with `box` and `embedding`.
        similarity: of two embeddings; larger is closer.
    """

    title: str
    protocol: str
    started: Callable[[Materials], Any]
    embeddings: tuple[str, dict[str, str], str]
    faces: Callable[[dict[str, Any]], list[dict[str, Any]]]
    similarity: Callable[[Vector, Vector], float]

    def embed(self, client: httpx.Client, picture: bytes) -> Vector | None:
        """Of the main face of a picture of `SIDE_PX` squared; None if it finds none.

        Raises:
            httpx.HTTPStatusError: neither an embedding nor the answer that there is no face.
        """
        path, fields, name = self.embeddings
        answer = client.post(path, data=fields, files={name: ("p.jpg", picture, "image/jpeg")})
        if answer.status_code in (400, 422) and b"face" in answer.content.lower():
            return None
        faces = self.faces(answer.raise_for_status().json())
        if not faces:
            return None
        return np.array(main_face(faces, SIDE_PX, SIDE_PX)["embedding"], dtype=np.float32)


def _cosine(first: Vector, second: Vector) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _nearness(first: Vector, second: Vector) -> float:
    return -float(np.linalg.norm(first - second))


@contextmanager
def _ours(materials: Materials) -> Iterator[Running]:
    with our_service(materials.data_dir, materials.logs / "ours.log") as (port, process_id):
        yield Running(port, process_id)


@contextmanager
def _ours_with_theirs(materials: Materials) -> Iterator[Running]:
    if materials.adopted is None:
        raise NotRunnable("--adopted was not given")
    network, data_dir = materials.adopted
    environment = {"SHRINKFACE_EMBEDDER_PATH": str(network.absolute())}
    with our_service(data_dir, materials.logs / "ours.log", environment) as (port, process_id):
        yield Running(port, process_id)


def _of_our_making(script: str, workers: int, threads: int | None = None) -> Callable[[Materials], Any]:
    """A service beside this file; `threads` of one network, 0 for as many as it likes."""

    @contextmanager
    def started(materials: Materials) -> Iterator[Running]:
        port, name = free_port(), script.removesuffix("_service.py")
        command = [
            str(materials.python), str(_HERE / script), "--port", str(port), "--workers", str(workers),
            "--enrolled", str(materials.enrolled), "--keep", str(materials.kept / f"{name}.npz"),
        ]  # fmt: skip
        command += ["--drawn", str(materials.drawn)] if materials.drawn is not None else []
        environment = {}
        if threads is not None:
            command += ["--detector", str(materials.detector), "--recognition", str(materials.recognition)]
            command += ["--threads", str(threads), *(["--raw"] if materials.raw else [])]
            environment = {"OPENBLAS_NUM_THREADS": str(threads)} if threads else {}
        with _running(command, materials, script, f"http://127.0.0.1:{port}/ready", environment) as process_id:
            yield Running(port, process_id)

    return started


@contextmanager
def _deepface(materials: Materials) -> Iterator[Running]:
    """Its API as its own image runs it, with a process a core; its SQLite store holds everybody."""
    packages = next((materials.python.parent.parent / "lib").glob("python*")) / "site-packages"
    weights = packages / "face_recognition_models" / "models"
    if not all((weights / name).exists() for name in _DLIB_WEIGHTS):
        raise NotRunnable(f"{weights} lacks the weights of dlib's network")
    port, store = free_port(), materials.kept / "deepface.sqlite"
    with tempfile.TemporaryDirectory(prefix="shrinkface-peer-") as own:
        home = Path(own) / ".deepface" / "weights"
        home.mkdir(parents=True)
        for name in _DLIB_WEIGHTS:
            (home / name).symlink_to(weights / name)
        shutil.copy(materials.detector, home / _YUNET_WEIGHTS)
        environment = {
            "DEEPFACE_HOME": own,
            "DEEPFACE_DATABASE_TYPE": "sqlite",
            "DEEPFACE_SQLITE_PATH": str(store),
            "DEEPFACE_LOG_LEVEL": "40",
        }
        command = [
            str(materials.python), "-m", "gunicorn", "--workers", "2", "--timeout", "3600",
            "--bind", f"127.0.0.1:{port}", "deepface.api.src.app:create_app()",
        ]  # fmt: skip
        filled = store.with_suffix(".done")
        if not filled.exists():
            store.unlink(missing_ok=True)
        with _running(command, materials, "deepface", f"http://127.0.0.1:{port}/", environment) as process_id:
            if not filled.exists():
                _fill_deepface(port, store, materials)
                filled.touch()
            yield Running(port, process_id)


def _fill_deepface(port: int, store: Path, materials: Materials) -> None:
    """People by its own call; the drawn rows, which have no pictures, straight into its table."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        for picture in sorted(materials.enrolled.glob("*/*.jpg")):
            fields = {**DEEPFACE, "img_name": picture.parent.name}
            client.post("/register", data=fields, files={"img": ("p.jpg", picture.read_bytes(), "image/jpeg")})
    if materials.drawn is None:
        return
    drawn = np.load(materials.drawn, mmap_mode="r")
    with closing(sqlite3.connect(store)) as connection, connection:
        people = connection.execute("SELECT embedding, aligned, l2_normalized FROM embeddings").fetchall()
        if not people:
            raise NotRunnable("DeepFace registered nobody")
        length = np.mean([np.linalg.norm(np.frombuffer(row[0], dtype="<f8")) for row in people])
        connection.executemany(
            "INSERT INTO embeddings (img_name, face, face_shape, model_name, detector_backend, aligned, l2_normalized, "
            "embedding, face_hash, embedding_hash) VALUES (?, x'', '[0]', ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    f"drawn-{row:07d}", DEEPFACE["model_name"], DEEPFACE["detector_backend"], people[0][1],
                    people[0][2], (vector.astype("<f8") * length).tobytes(), f"drawn-{row}", f"drawn-{row}",
                )
                for row, vector in enumerate(drawn)
            ),
        )  # fmt: skip


@contextmanager
def _running(
    command: Sequence[str], materials: Materials, name: str, url: str, environment: Mapping[str, str] = {}
) -> Iterator[int]:
    if not materials.python.exists():
        raise NotRunnable(f"there is no {materials.python}: make bench-peers sets it up")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **environment}
    # The peers' environment has no use for the paths of ours.
    quiet["PYTHONPATH"] = ""
    log = materials.logs / f"{name}.log"
    with running(command, log, lambda: answers_http(url), quiet, start_s=_START_S) as process:
        yield process.pid


def _deepface_faces(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for face in answer["results"]:
        area = face["facial_area"]
        box = {"x": area["x"], "y": area["y"], "width": area["w"], "height": area["h"]}
        found.append({"box": box, "embedding": face["embedding"]})
    return found


_PLAIN = ("/embeddings", {}, "image")

_OURS = ("/v1/embeddings", {}, "image")


def _faces(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["faces"]
    return found


def _insightface(title: str, workers: int, threads: int) -> Compared:
    started = _of_our_making("insightface_service.py", workers, threads)
    return Compared(title, "peer", started, _PLAIN, _faces, _cosine)


SERVICES = {
    "ours": Compared("ShrinkFace", "shrinkface", _ours, _OURS, _faces, _cosine),
    "ours-same": Compared(
        "ShrinkFace, insightface's network", "shrinkface", _ours_with_theirs, _OURS, _faces, _cosine
    ),
    "insightface": _insightface("insightface, one process", 1, 0),
    "insightface-1": _insightface("insightface, one process, a thread a request", 1, 1),
    "insightface-2": _insightface("insightface, two processes, a thread a request", 2, 1),
    "face_recognition": Compared(
        "face_recognition, two processes", "peer", _of_our_making("face_recognition_service.py", 2), _PLAIN,
        _faces, _nearness,
    ),
    "deepface": Compared(
        "DeepFace's API, two processes", "deepface", _deepface, ("/represent", DEEPFACE, "img"), _deepface_faces,
        _cosine,
    ),
}  # fmt: skip
