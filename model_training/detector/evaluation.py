"""How a detector compares with its teacher, through the very code that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model_training.data.faces import DataError
from model_training.detector.geometry import Kind, mirror_rows
from model_training.detector.labels import LABEL_SCORE_THRESHOLD, Faces, box_iou, detected_faces
from service.vision.detection import YuNetDetector

SCORE_THRESHOLD = 0.6

# Low enough that the best-scoring mistake on a faceless photo is reported rather than hidden.
_FACELESS_FLOOR = 0.02
_FACELESS_SIDES_PX = (160, 240, 320, 480, 640)
_FOUND_IOU = 0.5
# Off the grid of every stride, so that each view falls differently on the teacher's cells.
_SHIFTS_PX = ((0, 0), (3, 5), (6, 2), (11, 9))
# What overlaps even a doubtful face of the teacher this much is no false alarm.
_EXCUSED_IOU = 0.3

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class TeacherComparison:
    """A detector against its teacher on pictures with faces, both at score 0.6.

    Attributes:
        pictures: in which the teacher sees a face.
        main_face_found: share where the teacher's largest face is found with IoU at least 0.5.
        main_face_iou: mean IoU of those found.
        landmark_error: mean distance of their landmarks, relative to the teacher's eye distance.
        landmark_error_settled: the same against the teacher's settled landmarks (see `settled_landmarks`), which are
            free of most of its jitter.
        teacher_landmark_error_settled: what the teacher's own single answer is off by from those.
        landmark_error_p95: of `landmark_error`, its 95th percentile over pictures.
        recall: share of all the teacher's faces that is found with IoU at least 0.5.
        small_face_recall: the same for faces whose side is under 24 pixels.
        false_alarms_per_picture: detections that overlap no face of the teacher's, not even one at score 0.3.
    """

    pictures: int
    main_face_found: float
    main_face_iou: float
    landmark_error: float
    landmark_error_settled: float
    teacher_landmark_error_settled: float
    landmark_error_p95: float
    recall: float
    small_face_recall: float
    false_alarms_per_picture: float

    def rounded(self) -> dict[str, float]:
        """As plain numbers for a manifest."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class _Picture:
    main_iou: float
    landmark_error: float
    settled_error: float
    teacher_settled_error: float
    found: NDArray[np.bool_]
    sides_px: NDArray[np.float32]
    false_alarms: int


def landmark_error(found: Faces, expected: Faces) -> float:
    """Mean distance of five landmarks relative to the expected eye distance, of two rows of (15,) float32."""
    points, wanted = found[4:14].reshape(5, 2), expected[4:14].reshape(5, 2)
    eyes = max(float(np.linalg.norm(wanted[1] - wanted[0])), 1.0)
    return float(np.linalg.norm(points - wanted, axis=1).mean()) / eyes


def settled_landmarks(detector: YuNetDetector, image: Image, face: Faces) -> NDArray[np.float32]:
    """A face's landmarks averaged over shifted and mirrored views of the picture, the plain one not among them.

    Moved by a few pixels, YuNet puts the landmarks of a 70 px face elsewhere by 7 % of the eye distance, mirrored by
    8 %. No other detector can agree with a single answer much better than that; with the average it can.

    Args:
        detector: finds the face in every view.
        image: (height, width, 3) uint8, BGR.
        face: (15,) float32, the face in the plain picture.

    Returns:
        (5, 2) float32, pixels; those of `face` where no view shows it.
    """
    seen = []
    for right, down in _SHIFTS_PX:
        shifted = np.asarray(cv2.copyMakeBorder(image, down, 0, right, 0, cv2.BORDER_CONSTANT), dtype=np.uint8)
        for mirrored in (False, True):
            if not (right or down or mirrored):
                continue
            faces = detected_faces(detector, np.ascontiguousarray(shifted[:, ::-1]) if mirrored else shifted)
            if not len(faces):
                continue
            if mirrored:
                faces[:, 14] = Kind.FACE
                faces = mirror_rows(faces, shifted.shape[1])
            faces[:, :14] -= np.tile(np.array([right, down], dtype=np.float32), 7)
            overlap = box_iou(face[None], faces)[0]
            if overlap.max() >= _FOUND_IOU:
                seen.append(faces[int(overlap.argmax()), 4:14].reshape(5, 2))
    if not seen:
        return face[4:14].reshape(5, 2)
    return np.asarray(np.mean(seen, axis=0), dtype=np.float32)


def main_face(faces: Faces) -> Faces | None:
    """The largest face at the serving threshold or above, (15,) float32."""
    sure = faces[faces[:, 14] >= SCORE_THRESHOLD]
    if not len(sure):
        return None
    return np.asarray(sure[int((sure[:, 2:4] - sure[:, :2]).prod(axis=1).argmax())])


def compare_faces(found: Faces, expected: Faces, settled: NDArray[np.float32] | None = None) -> _Picture | None:
    """One picture's share in a comparison; None where the teacher is sure of no face.

    Args:
        found: (n, 15) float32, the detector's faces.
        expected: (m, 15) float32, the teacher's, doubtful ones included.
        settled: (5, 2) float32, the main face's landmarks without the teacher's jitter, where they are known.
    """
    sure = expected[expected[:, 14] >= SCORE_THRESHOLD]
    if not len(sure):
        return None
    areas = (sure[:, 2:4] - sure[:, :2]).prod(axis=1)
    main = int(areas.argmax())
    if not len(found):
        return _Picture(0.0, np.nan, np.nan, np.nan, np.zeros(len(sure), dtype=bool), np.sqrt(areas), 0)
    overlap = box_iou(sure, found)
    mate = int(overlap[main].argmax())
    excused = box_iou(expected, found).max(axis=0) >= _EXCUSED_IOU
    steady = sure[main].copy()
    if settled is not None:
        steady[4:14] = settled.reshape(-1)
    return _Picture(
        main_iou=float(overlap[main, mate]),
        landmark_error=landmark_error(found[mate], sure[main]),
        settled_error=landmark_error(found[mate], steady),
        teacher_settled_error=landmark_error(sure[main], steady),
        found=overlap.max(axis=1) >= _FOUND_IOU,
        sides_px=np.sqrt(areas),
        false_alarms=int((~excused).sum()),
    )


def compare_with_teacher(
    detector: YuNetDetector, teacher: YuNetDetector, pictures: Sequence[Path], *, threads: int = 2
) -> TeacherComparison:
    """Run both over pictures.

    Args:
        detector: at score threshold 0.6.
        teacher: at 0.3, so that its doubtful faces are known too.
        pictures: files.
        threads: pictures at a time.

    Raises:
        DataError: the teacher sees no face in any of them.
    """

    def compare(path: Path) -> _Picture | None:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{path} cannot be read")
        picture = np.asarray(image, dtype=np.uint8)
        expected = detected_faces(teacher, picture)
        main = main_face(expected)
        settled = None if main is None else settled_landmarks(teacher, picture, main)
        return compare_faces(detected_faces(detector, picture), expected, settled)

    with ThreadPoolExecutor(threads) as pool:
        answers = list(tqdm(pool.map(compare, pictures), total=len(pictures), unit="picture", desc="comparing"))
    return summarise(answer for answer in answers if answer is not None)


def main_face_scores(
    detector: YuNetDetector, teacher: YuNetDetector, pictures: Sequence[Path], *, threads: int = 2
) -> NDArray[np.float32]:
    """The detector's score for the teacher's main face of each picture, 0 where it is not found: (n,) float32.

    What the export's threshold is chosen from; on held-out pictures, never on a benchmark's.
    """

    def score(path: Path) -> float | None:
        image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), dtype=np.uint8)
        main = main_face(detected_faces(teacher, image))
        if main is None:
            return None
        found = detected_faces(detector, image)
        hits = found[box_iou(main[None], found)[0] >= _FOUND_IOU, 14] if len(found) else found[:, 14]
        return float(hits.max()) if len(hits) else 0.0

    with ThreadPoolExecutor(threads) as pool:
        answers = [answer for answer in pool.map(score, pictures) if answer is not None]
    return np.array(answers, dtype=np.float32)


def summarise(pictures: Iterable[_Picture]) -> TeacherComparison:
    """Figures over pictures.

    Raises:
        DataError: there are none.
    """
    answers = list(pictures)
    if not answers:
        raise DataError("the teacher sees no face in any picture")
    overlap = np.array([answer.main_iou for answer in answers])
    hit = overlap >= _FOUND_IOU
    errors = np.array([a.landmark_error for a in answers])[hit]
    settled = np.array([a.settled_error for a in answers])[hit]
    teachers = np.array([a.teacher_settled_error for a in answers])[hit]
    found = np.concatenate([answer.found for answer in answers])
    small = np.concatenate([answer.sides_px for answer in answers]) < 24
    return TeacherComparison(
        pictures=len(answers),
        main_face_found=float(hit.mean()),
        main_face_iou=float(overlap[hit].mean()) if hit.any() else 0.0,
        landmark_error=float(errors.mean()) if hit.any() else 1.0,
        landmark_error_settled=float(settled.mean()) if hit.any() else 1.0,
        teacher_landmark_error_settled=float(teachers.mean()) if hit.any() else 1.0,
        landmark_error_p95=float(np.percentile(errors, 95)) if hit.any() else 1.0,
        recall=float(found.mean()),
        small_face_recall=float(found[small].mean()) if small.any() else 1.0,
        false_alarms_per_picture=float(np.mean([answer.false_alarms for answer in answers])),
    )


def sample_photos_without_faces() -> dict[str, Image]:
    """The two sample photos of scikit-learn, BGR by name; empty where it is not installed."""
    try:
        from sklearn.datasets import load_sample_images  # noqa: PLC0415 - an optional extra
    except ImportError:
        return {}
    samples = load_sample_images()
    return {
        Path(name).name: np.ascontiguousarray(image[..., ::-1])
        for name, image in zip(samples.filenames, samples.images, strict=True)
    }


def sample_photos_with_faces() -> dict[str, Image]:
    """The public-domain portraits of scikit-image and matplotlib, BGR by name; those not installed are missing."""
    photos: dict[str, Image] = {}
    try:
        from skimage.data import astronaut  # noqa: PLC0415 - an optional extra

        photos["astronaut"] = np.ascontiguousarray(astronaut()[..., ::-1])
    except ImportError:
        pass
    try:
        from matplotlib.cbook import get_sample_data  # noqa: PLC0415 - an optional extra

        portrait = cv2.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)), cv2.IMREAD_COLOR)
        photos["grace_hopper"] = np.asarray(portrait, dtype=np.uint8)
    except ImportError:
        pass
    return photos


def highest_faceless_score(open_detector: Callable[[float], YuNetDetector], photos: Iterable[Image]) -> float:
    """The detector's most confident mistake on photos without a face, at several sizes and mirrored.

    Args:
        open_detector: opens the detector at a score threshold.
        photos: (height, width, 3) uint8, BGR.
    """
    detector = open_detector(_FACELESS_FLOOR)
    best = 0.0
    for photo in photos:
        for side in _FACELESS_SIDES_PX:
            scale = side / max(photo.shape[:2])
            resized = np.asarray(
                cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8
            )
            for view in (resized, np.ascontiguousarray(resized[:, ::-1])):
                best = max([best, *(face.score for face in detector.detect(view))])
    return best


def changed_portraits(photo: Image) -> dict[str, Image]:
    """A portrait and what the demo does to it, by name."""
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 10, 1.0)
    return {
        "as it is": photo,
        "mirrored": np.ascontiguousarray(photo[:, ::-1]),
        "half size": np.asarray(cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        "turned 10 degrees": np.asarray(cv2.warpAffine(photo, turn, (width, height)), dtype=np.uint8),
        "darker": np.asarray(cv2.convertScaleAbs(photo, alpha=0.5), dtype=np.uint8),
    }


def portrait_error(detector: YuNetDetector, teacher: YuNetDetector, photo: Image) -> float | None:
    """Landmark error of the main face relative to the eye distance; None where it is not found."""
    answer = compare_faces(detected_faces(detector, photo), detected_faces(teacher, photo))
    if answer is None or answer.main_iou < _FOUND_IOU:
        return None
    return round(answer.landmark_error, 5)


def open_at(model: Path, threshold: float) -> YuNetDetector:
    """A detector as the service opens it, at another score threshold."""
    return YuNetDetector(model, score_threshold=threshold)


def open_teacher(model: Path) -> YuNetDetector:
    """The teacher, at the threshold where its doubtful faces show."""
    return YuNetDetector(model, score_threshold=LABEL_SCORE_THRESHOLD)
