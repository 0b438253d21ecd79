"""How a service is asked, and what its answer says. Ours, and the peers of `tests.load.peers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

_BOUNDARY = "shrinkface-load-5f0c2c9e"
_HEADERS = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
# Between who is in a picture and a number, in the id of somebody who was enrolled under load.
NUMBERED = "."


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says of the main face: who it is (None: nobody known), and who came first."""

    identified: str | None
    first: str | None


def form(fields: dict[str, str], picture: bytes, name: str = "image") -> tuple[bytes, dict[str, str]]:
    """Body and headers of a multipart form with one JPEG."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    parts.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="p.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return "".join(parts).encode() + picture + f"\r\n--{_BOUNDARY}--\r\n".encode(), _HEADERS


@dataclass(frozen=True)
class Protocol:
    """How one kind of service is spoken to.

    Attributes:
        identify: a picture to a call.
        read: the body of a 200 to what it says.
        no_face: of the body of an error, whether it says that the picture has no face, which is an answer.
        metrics: path of a Prometheus exposition, or None.
    """

    identify: Callable[[bytes], Call]
    read: Callable[[bytes], Reading]
    no_face: Callable[[bytes], bool]
    metrics: str | None = None


def enrolling(person_id: str, picture: bytes) -> Call:
    """Ours and the peers' of this project's making."""
    return Call("POST", "/enroll", *form({"person_id": person_id}, picture))


def deleting(person_id: str, gallery: str = "default") -> Call:
    """Ours."""
    return Call("DELETE", f"/v1/galleries/{gallery}/persons/{person_id}")


def main_face(faces: list[dict[str, Any]], width: float, height: float) -> dict[str, Any]:
    """The face whose middle is nearest to that of the picture: the one that a picture of LFW is of.

    Each has a `box` of x, y, width and height in pixels.
    """

    def distance(face: dict[str, Any]) -> float:
        box = face["box"]
        x, y = box["x"] + box["width"] / 2 - width / 2, box["y"] + box["height"] / 2 - height / 2
        return float(x * x + y * y)

    return min(faces, key=distance)


def _read(body: bytes) -> Reading:
    answer = orjson.loads(body)
    face = main_face(answer["faces"], answer["width"], answer["height"])
    first = face["matches"][0]["person_id"] if face["matches"] else None
    return Reading(face["decision"]["person_id"] if face["decision"]["identified"] else None, first)


def problem(body: bytes) -> str:
    """The last part of a problem's type, or nothing."""
    try:
        return str(orjson.loads(body)["type"]).rpartition(":")[2]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def verdict(shows: str, reading: Reading) -> str:
    """What to think of an answer about a picture that shows somebody enrolled, or a stranger (an empty name)."""
    identified = None if reading.identified is None else reading.identified.partition(NUMBERED)[0]
    if not shows:
        return "stranger rejected" if identified is None else "stranger identified"
    if identified is not None:
        return "identified" if identified == shows else "swapped"
    first = "" if reading.first is None else reading.first.partition(NUMBERED)[0]
    return "missed, though first" if first == shows else "missed"


def _read_peer(body: bytes) -> Reading:
    """The services of `tests.load.peers`."""
    answer = orjson.loads(body)
    face = main_face(answer["faces"], answer["width"], answer["height"])
    return Reading(face["person_id"], face["first"])


def _read_deepface(body: bytes) -> Reading:
    """DeepFace's `/search`: of each face those within its threshold, nearest first; it does not say where a face is."""
    near = [match for matches in orjson.loads(body)["results"] for match in matches]
    nearest = min(near, key=lambda match: match["distance"], default=None)
    name = None if nearest is None else nearest["img_name"]
    return Reading(name, name)


# What of DeepFace's models needs no download, see `tests.load.peers.services`.
DEEPFACE = {"model_name": "Dlib", "detector_backend": "yunet"}

PROTOCOLS = {
    "shrinkface": Protocol(
        identify=lambda picture: Call("POST", "/identify", *form({}, picture)),
        read=_read,
        no_face=lambda body: problem(body) == "no-face",
        metrics="/metrics",
    ),
    "peer": Protocol(
        identify=lambda picture: Call("POST", "/identify", *form({}, picture)),
        read=_read_peer,
        no_face=lambda body: b"no face" in body,
    ),
    "deepface": Protocol(
        identify=lambda picture: Call("POST", "/search", *form(DEEPFACE, picture, "img")),
        read=_read_deepface,
        no_face=lambda body: b"could not be detected" in body,
    ),
}
