"""A second look at faces that the network sees badly: tilted heads, and those it is not quite sure of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import cut_out
from service.domain import Box, Detection
from service.ports import Detector
from service.vision.detection import YuNetDetector
from service.vision.pose import head_pose

# All the numbers that follow were chosen on pictures of LFW, turned by known angles.
# What the network half believes: of faces tilted by 45 degrees 95 % reach it, though only 35 % reach 0.7.
_BELIEVED_FROM = 0.3
# Beside a face that is clear, another is worth a look only from here on; most of what is below it is nobody.
_DOUBTFUL_FROM = 0.55
# What is less may be a head upside down, which often reaches 0.7 with landmarks in all the wrong places.
_CLEAR_FROM = 0.8
# Landmarks lean by less than a third of the head's tilt: 10 degrees are read as 3, 20 as 5.7, 30 as 7.5. Those of large
# faces, which other cells of the network answer for, follow it nearly whole, but these cells take heads upside down for
# upright ones. So large faces are always looked at again; it takes a tenth of the time that their pictures take anyway.
_TILT_OF_LEAN = 3.3
_LARGE_FROM_PX = 128.0
_TILT_OF_LARGE_LEAN = 1.3
_MOST_TURN_DEG = 45.0
# Some 17 degrees of tilt, where embeddings begin to suffer.
_TILTED_FROM_LEAN_DEG = 5.0
_UPRIGHT_FROM_LEAN_DEG = 2.0
# The lean is added once more to the landmarks that are answered. All of the missing two thirds would also add the noise
# of the lean three times over, which costs upright faces more than it gives.
_LEAN_ADDED = 1.0
# A face in a second look has the size that the network sees best, amid as much of its surroundings as matters.
_LOOK_SIDE_PX = 128
_LOOK_FACE_PX = 52.0
_ROUNDS = 2
# What a face must reach of which the first look believed little, or which was found lying: so many more chances to
# mistake something for a face ask for more.
_HARDLY_BELIEVED_TO = 0.9
# A look must not make a face less sure by more than this.
_SCORE_SLACK = 0.05
# What a look may take for the face that it was meant for, in sides of that face.
_OFF_BY = 0.5
_SIDES = (0.5, 2.0)
_LEAST_SIDE_PX = 4.0
# Of one picture.
_MOST_LOOKS = 24
_MOST_LYING = 6
# A picture in which no face is clear is turned by these and searched again, at no more than this side.
_LYING_DEG = (90.0, -90.0, 180.0)
_LYING_SIDE_PX = 320
# A face that is not clear in such a picture even after that may lean so far that its landmarks tell nothing.
_ASLANT_DEG = (-45.0, 45.0)
# To be raised with every change of this file that changes what is found.
_REVISION = 1

Affine = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A face in pixels of the picture, and how it was looked at.

    Attributes:
        turned_deg: what its head was taken to be tilted by, clockwise.
        side_px: of its box, in what was looked at.
    """

    face: Detection
    turned_deg: float
    side_px: float

    @property
    def is_large(self) -> bool:
        """Whether it was seen by the cells for large faces."""
        return self.side_px >= _LARGE_FROM_PX

    @property
    def lean_deg(self) -> float:
        """Tilt of the landmarks in what was looked at, where they would not lean if `turned_deg` were right."""
        return _half_turn(head_pose(self.face.landmarks).roll_deg - self.turned_deg)

    @property
    def tilt_deg(self) -> float:
        """What the head is tilted by, if it leans so far."""
        factor = _TILT_OF_LARGE_LEAN if self.is_large else _TILT_OF_LEAN
        more = float(np.clip(factor * self.lean_deg, -_MOST_TURN_DEG, _MOST_TURN_DEG))
        return _half_turn(self.turned_deg + more)

    def straightened(self) -> Detection:
        """With landmarks that follow the head's tilt as far as they can be trusted."""
        points = self.face.landmarks.astype(np.float64)
        middle = points.mean(axis=0)
        added_deg = 0.0 if self.is_large else _LEAN_ADDED * self.lean_deg
        turned = (points - middle) @ _rotation(added_deg).T + middle
        return Detection(self.face.box, turned.astype(np.float32), self.face.score)


class SecondLookDetector:
    """Detector port: a network's faces, of which some are looked at again, upright and at the best size.

    The network has learned from upright heads, and from a teacher that puts upright landmarks on tilted ones. From 20
    degrees on their embeddings suffer; beyond 40 degrees most are not found. So the surroundings of a face that leans,
    or is not quite sure, are turned back and searched again. A picture in which no face is clear is also searched
    lying on its sides and upside down.

    Args:
        network: opened at a score threshold of at most 0.3, to know what it half believes.
        score_threshold: of the faces returned.
        max_side_px: the network searches larger pictures scaled down to this.
        nms_threshold: of two faces that overlap by more (intersection over union), the less confident is dropped.

    Attributes:
        identity: see the port.
    """

    def __init__(
        self, network: Detector, *, score_threshold: float = 0.7, max_side_px: int = 640, nms_threshold: float = 0.3
    ) -> None:
        self._network, self._score_threshold, self._nms_threshold = network, score_threshold, nms_threshold
        self._max_side_px = max_side_px
        self.identity = f"{network.identity}:second-look:{_REVISION}:{score_threshold}:{nms_threshold}"

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find faces.

        Args:
            image: (height, width, 3) uint8, BGR.

        Returns:
            Faces in pixels of `image`, most confident first; empty when there are none. A tilted head's box is the
            upright frame of the ellipse that it had in the turned picture.
        """
        looks = _Looks(self._network, image)
        scale = min(1.0, self._max_side_px / max(image.shape[:2]))
        first = [_Seen(face, 0.0, _side_px(face.box) * scale) for face in self._network.detect(image)]
        clear = _any_clear(first)
        worth_from = _DOUBTFUL_FROM if clear else _BELIEVED_FROM
        worth = [each for each in first if each.face.score >= worth_from]
        found = [self._closer(looks, each, thoroughly=not clear) for each in worth]
        if not _any_clear(each for each in found if self._is_sure(each)):
            lying = sorted(looks.lying(), key=_score, reverse=True)
            found += [self._closer(looks, each, thoroughly=True) for each in lying[:_MOST_LYING]]
        return self._distinct(found)

    def _closer(self, looks: _Looks, seen: _Seen, *, thoroughly: bool) -> _Seen:
        """A face after whatever looks it needs; one that was hardly believed must have become clearer than others."""
        unclear = thoroughly and seen.face.score < _CLEAR_FROM
        if self._is_sure(seen) and not (seen.turned_deg or seen.is_large or unclear or _is_tilted(seen)):
            return seen
        closer = looks.closer(seen)
        if thoroughly and closer.face.score < _CLEAR_FROM:
            closer = looks.aslant(closer)
        hardly = seen.face.score < min(_DOUBTFUL_FROM, self._score_threshold) or seen.turned_deg != 0.0
        if hardly and closer.face.score < _HARDLY_BELIEVED_TO:
            return _Seen(Detection(closer.face.box, closer.face.landmarks, 0.0), closer.turned_deg, closer.side_px)
        return closer

    def _is_sure(self, seen: _Seen) -> bool:
        return seen.face.score >= self._score_threshold

    def _distinct(self, seen: Iterable[_Seen]) -> list[Detection]:
        kept: list[Detection] = []
        for each in sorted(filter(self._is_sure, seen), key=_score, reverse=True):
            if all(_overlap(each.face.box, other.box) <= self._nms_threshold for other in kept):
                kept.append(each.straightened())
        return kept


def open_detector(
    model_path: Path, *, score_threshold: float = 0.7, max_side_px: int = 640, max_faces: int = 100
) -> SecondLookDetector:
    """A detector as the service runs it; see `YuNetDetector` for the arguments and errors."""
    network = YuNetDetector(
        model_path,
        score_threshold=min(score_threshold, _BELIEVED_FROM),
        max_side_px=max_side_px,
        max_faces=max_faces,
    )
    return SecondLookDetector(network, score_threshold=score_threshold, max_side_px=max_side_px)


class _Looks:
    """Looks at parts of one picture, turned; a bounded number of them."""

    def __init__(self, network: Detector, image: NDArray[np.uint8]) -> None:
        self._network, self._image = network, image
        self._left = _MOST_LOOKS

    def closer(self, seen: _Seen) -> _Seen:
        """A face as it is seen upright, or as it was where that shows none."""
        # The first look at a large face shows it at the size at which scores and leans mean what they mean elsewhere.
        for _ in range(_ROUNDS + seen.is_large):
            again = self._look(seen, seen.tilt_deg)
            if again is None or (not seen.is_large and again.face.score < seen.face.score - _SCORE_SLACK):
                break
            seen = again
            if abs(seen.lean_deg) < _UPRIGHT_FROM_LEAN_DEG:
                break
        return seen

    def aslant(self, seen: _Seen) -> _Seen:
        """A face as it is seen upright after turning it to either side, or as it was where neither is surer."""
        turned = [self._look(seen, _half_turn(seen.turned_deg + more)) for more in _ASLANT_DEG]
        best = max((each for each in turned if each is not None), key=_score, default=seen)
        return self.closer(best) if best.face.score > seen.face.score else seen

    def lying(self) -> list[_Seen]:
        """Faces in the whole picture turned on its sides and upside down."""
        height, width = self._image.shape[:2]
        side_px = min(_LYING_SIDE_PX, max(height, width))
        middle = ((width - 1) / 2, (height - 1) / 2)
        found = []
        for turned_deg in _LYING_DEG:
            found += self._faces_in(
                _view(middle, turned_deg, side_px / max(height, width), side_px), side_px, turned_deg
            )
        return found

    def _look(self, seen: _Seen, turned_deg: float) -> _Seen | None:
        """The face in a small picture of it and its surroundings, turned back; None when it is not there."""
        side_px, middle = _side_px(seen.face.box), _middle(seen.face.box)
        if self._left == 0 or side_px < _LEAST_SIDE_PX:
            return None
        self._left -= 1
        matrix = _view(middle, turned_deg, _LOOK_FACE_PX / side_px, _LOOK_SIDE_PX)
        found = self._faces_in(matrix, _LOOK_SIDE_PX, turned_deg)
        near = [each for each in found if _is_near(each.face.box, middle, side_px)]
        return max(near, key=_score, default=None)

    def _faces_in(self, matrix: Affine, view_px: int, turned_deg: float) -> list[_Seen]:
        """Faces of a square view, into which `matrix` carries points of the picture, in pixels of the picture."""
        back = np.asarray(cv2.invertAffineTransform(matrix), dtype=np.float64)
        view = cut_out(self._image, matrix, view_px)
        found = self._network.detect(view)
        return [_Seen(_carried(face, back), turned_deg, _side_px(face.box)) for face in found]


def _view(middle: tuple[float, float], tilt_deg: float, scale: float, side_px: int) -> Affine:
    """(2, 3): from a picture to a square view around `middle`, where what was tilted by `tilt_deg` is upright."""
    matrix = scale * _rotation(-tilt_deg)
    return np.column_stack([matrix, (side_px - 1) / 2 - matrix @ np.asarray(middle)])


def _rotation(clockwise_deg: float) -> Affine:
    angle = np.radians(clockwise_deg)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _carried(face: Detection, matrix: Affine) -> Detection:
    """A face moved by a similarity; its box becomes the upright frame of the ellipse in it."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    halves = np.sqrt(np.square(linear) @ np.square([face.box.width / 2, face.box.height / 2]))
    left, top = linear @ _middle(face.box) + shift - halves
    points = face.landmarks @ linear.T + shift
    box = Box(float(left), float(top), float(2 * halves[0]), float(2 * halves[1]))
    return Detection(box, np.asarray(points, dtype=np.float32), face.score)


def _is_near(box: Box, middle: tuple[float, float], side_px: float) -> bool:
    least, most = _SIDES
    if not least * side_px < _side_px(box) < most * side_px:
        return False
    return float(np.hypot(*np.subtract(_middle(box), middle))) < _OFF_BY * side_px


def _is_tilted(seen: _Seen) -> bool:
    return abs(seen.lean_deg) >= _TILTED_FROM_LEAN_DEG


def _any_clear(seen: Iterable[_Seen]) -> bool:
    return any(each.face.score >= _CLEAR_FROM for each in seen)


def _score(seen: _Seen) -> float:
    return seen.face.score


def _side_px(box: Box) -> float:
    return float(np.sqrt(box.width * box.height))


def _middle(box: Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


def _overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    across = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    down = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    common = max(0.0, across) * max(0.0, down)
    return common / (first.width * first.height + second.width * second.height - common)


def _half_turn(degrees: float) -> float:
    """The same direction between -180 and 180."""
    return (degrees + 180.0) % 360.0 - 180.0
