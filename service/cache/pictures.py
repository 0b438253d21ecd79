"""What a picture showed, as bytes, 158 of them a face. The embeddings are kept elsewhere, under the faces' keys.

Layout, little-endian: the format's number (1 byte), width and height (4 each), faces found (4) and told (2); then for
each face its key (20), box (4 doubles), landmarks (10 floats), score (double), seven doubles of quality, and the issues
of the standard and of the strict gate, as one bit each of a fixed list (1 and 1).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain import Box, Detection, FaceQuality
from service.ports import KnownFace, KnownPicture

_FORMAT = 1
_HEAD = struct.Struct("<BIIIH")
_FACE = struct.Struct("<20s4d10fd7dBB")
# Of a key: hexadecimal digits.
_KEY_BYTES = 20
# The place of an issue is its bit: new ones go to the end.
_ISSUES = ("face-too-small", "face-uncertain", "face-blurred", "face-turned-away")
_MOST_FACES = 1_000
_LARGEST_SIDE_PX = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A picture whose faces still lack their embeddings.

    Attributes:
        keys: of the faces, in their order.
    """

    width: int
    height: int
    faces_total: int
    keys: tuple[str, ...]
    _faces: tuple[tuple[Detection, FaceQuality, tuple[str, ...]], ...]

    def with_embeddings(self, embeddings: Sequence[NDArray[np.float32]]) -> KnownPicture:
        """The picture; `embeddings` in the order of `keys`."""
        faces = tuple(
            KnownFace(detection, quality, strict, key, embedding)
            for (detection, quality, strict), key, embedding in zip(self._faces, self.keys, embeddings, strict=True)
        )
        return KnownPicture(self.width, self.height, faces, self.faces_total)


def encoded(picture: KnownPicture) -> bytes | None:
    """A picture without its embeddings; None for one that the format has no room for."""
    if len(picture.faces) > _MOST_FACES:
        return None
    try:
        parts = [_HEAD.pack(_FORMAT, picture.width, picture.height, picture.faces_total, len(picture.faces))]
        parts += [_encoded_face(face) for face in picture.faces]
    except (struct.error, ValueError):
        return None
    return b"".join(parts)


def decoded(content: bytes) -> Outline | None:
    """Inverse of `encoded`; None for what is nothing of its making."""
    if len(content) < _HEAD.size or content[0] != _FORMAT:
        return None
    _, width, height, total, count = _HEAD.unpack_from(content)
    if not 0 < width <= _LARGEST_SIDE_PX or not 0 < height <= _LARGEST_SIDE_PX or not count <= total:
        return None
    if count > _MOST_FACES or len(content) != _HEAD.size + count * _FACE.size:
        return None
    keys, faces = [], []
    for key, *numbers, issues, strict in _FACE.iter_unpack(content[_HEAD.size :]):
        if not all(math.isfinite(number) for number in numbers) or (issues | strict) >> len(_ISSUES):
            return None
        keys.append(key.hex())
        faces.append((*_decoded_face(numbers, _named(issues)), _named(strict)))
    return Outline(width, height, total, tuple(keys), tuple(faces))


def _encoded_face(face: KnownFace) -> bytes:
    key, box, quality = bytes.fromhex(face.key), face.detection.box, face.quality
    if len(key) != _KEY_BYTES or quality.yaw_deg is None or quality.pitch_deg is None:
        raise ValueError("not a face of an analysis")
    return _FACE.pack(
        key,
        *(box.x, box.y, box.width, box.height),
        *face.detection.landmarks.ravel().tolist(),
        face.detection.score,
        *(quality.side_px, quality.detection_score, quality.sharpness, quality.yaw, quality.roll_deg),
        *(quality.yaw_deg, quality.pitch_deg),
        _bits(quality.issues),
        _bits(face.strict_issues),
    )


def _decoded_face(numbers: Sequence[float], issues: tuple[str, ...]) -> tuple[Detection, FaceQuality]:
    landmarks = np.array(numbers[4:14], dtype=np.float32).reshape(5, 2)
    side_px, detection_score, sharpness, yaw, roll_deg, yaw_deg, pitch_deg = numbers[15:]
    return Detection(Box(*numbers[:4]), landmarks, numbers[14]), FaceQuality(
        side_px, detection_score, sharpness, yaw, roll_deg, issues, yaw_deg, pitch_deg
    )


def _bits(issues: Sequence[str]) -> int:
    return sum(1 << _ISSUES.index(issue) for issue in issues)


def _named(bits: int) -> tuple[str, ...]:
    return tuple(issue for place, issue in enumerate(_ISSUES) if bits >> place & 1)
