"""The services that are compared, each started as its authors say, and how each gives an embedding."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        enrolled: folder of `Name/picture.jpg`, the peers' gallery.
        data_dir: of our service, with the same people and many drawn faces besides.
    """

    python: Path
    detector: Path
    recognition: Path
    raw: bool
    enrolled: Path
    data_dir: Path
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


def _of_our_making(script: str, workers: int, *more: str) -> Callable[[Materials], Any]:
    @contextmanager
    def started(materials: Materials) -> Iterator[Running]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="shrinkface-peer-") as own:
            command = [
                str(materials.python), str(_HERE / script), "--port", str(port), "--workers", str(workers),
                "--enrolled", str(materials.enrolled), "--keep", str(Path(own) / "gallery.npz"),
            ]  # fmt: skip
            if script.startswith("insightface"):
                command += ["--detector", str(materials.detector), "--recognition", str(materials.recognition)]
                command += ["--raw"] if materials.raw else []
            with _running(command, materials, script, f"http://127.0.0.1:{port}/ready") as process_id:
                yield Running(port, process_id)

    return started


@contextmanager
def _deepface(materials: Materials) -> Iterator[Running]:
    """Its API as its own image runs it, with a process a core; its SQLite store holds the people."""
    packages = next((materials.python.parent.parent / "lib").glob("python*")) / "site-packages"
    weights = packages / "face_recognition_models" / "models"
    if not all((weights / name).exists() for name in _DLIB_WEIGHTS):
        raise NotRunnable(f"{weights} lacks the weights of dlib's network")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="shrinkface-peer-") as own:
        home = Path(own) / ".deepface" / "weights"
        home.mkdir(parents=True)
        for name in _DLIB_WEIGHTS:
            (home / name).symlink_to(weights / name)
        shutil.copy(materials.detector, home / _YUNET_WEIGHTS)
        environment = {
            "DEEPFACE_HOME": own,
            "DEEPFACE_DATABASE_TYPE": "sqlite",
            "DEEPFACE_SQLITE_PATH": str(Path(own) / "faces.sqlite"),
            "DEEPFACE_LOG_LEVEL": "40",
        }
        command = [
            str(materials.python), "-m", "gunicorn", "--workers", "2", "--timeout", "3600",
            "--bind", f"127.0.0.1:{port}", "deepface.api.src.app:create_app()",
        ]  # fmt: skip
        with _running(command, materials, "deepface", f"http://127.0.0.1:{port}/", environment) as process_id:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                for picture in sorted(materials.enrolled.glob("*/*.jpg")):
                    fields = {**DEEPFACE, "img_name": picture.parent.name}
                    client.post("/register", data=fields, files={"img": ("p.jpg", picture.read_bytes(), "image/jpeg")})
            yield Running(port, process_id)


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

SERVICES = {
    "ours": Compared(
        "ShrinkFace", "shrinkface", _ours, ("/v1/embeddings", {}, "image"), lambda answer: answer["faces"], _cosine
    ),
    "insightface": Compared(
        "insightface, one process", "peer", _of_our_making("insightface_service.py", 1), _PLAIN,
        lambda answer: answer["faces"], _cosine,
    ),
    "insightface-2": Compared(
        "insightface, two processes", "peer", _of_our_making("insightface_service.py", 2), _PLAIN,
        lambda answer: answer["faces"], _cosine,
    ),
    "face_recognition": Compared(
        "face_recognition, two processes", "peer", _of_our_making("face_recognition_service.py", 2), _PLAIN,
        lambda answer: answer["faces"], _nearness,
    ),
    "deepface": Compared(
        "DeepFace's API, two processes", "deepface", _deepface, ("/represent", DEEPFACE, "img"), _deepface_faces,
        _cosine,
    ),
}  # fmt: skip
