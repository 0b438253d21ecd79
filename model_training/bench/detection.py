"""`bench detection`: whom the service's detector finds of those that a teacher sees, small ones and tilted ones too."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model_training.bench.defaults import MODELS
from model_training.bench.tables import show
from service.contract import ContractError, align
from service.domain import Box, Detection
from service.ports import Detector
from service.vision.detection import YuNetDetector
from service.vision.embedding import OnnxNetwork
from service.vision.imaging import ImageLimits, decode
from service.vision.pose import head_pose
from service.vision.second_look import open_detector

Image = NDArray[np.uint8]
T = TypeVar("T")
_FOUND_IOU = 0.5
_TEACHER_SCORE = 0.7
# Widths of the faces of shrunk pictures, in pixels.
_BANDS = ((16, 20), (20, 24), (24, 28), (28, 32))
_TILTS_DEG = (0, 10, 20, 30, 45, 60, 90, 180)
_WORKERS = 2
# Pictures in memory at a time.
_AHEAD = 64


@dataclass
class Share:
    """So many of so many."""

    found: int = 0
    of: int = 0

    def count(self, hits: Iterable[bool]) -> None:
        """Add some."""
        for hit in hits:
            self.found, self.of = self.found + hit, self.of + 1

    @property
    def rate(self) -> float:
        """NaN where there were none."""
        return self.found / self.of if self.of else float("nan")


@dataclass
class Tilted:
    """Heads at one tilt.

    Attributes:
        found: those whose face was found in its place.
        cosines: of their embeddings to those of the upright pictures.
        roll_errors_deg: between the roll told and the true one, beyond the roll told of the upright picture.
    """

    found: Share
    cosines: list[float]
    roll_errors_deg: list[float]


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    across = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    down = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    common = max(0.0, across) * max(0.0, down)
    return common / (first.width * first.height + second.width * second.height - common)


def hits(detector: Detector, image: Image, faces: Sequence[Detection]) -> list[bool]:
    """For each of the faces whether the detector finds one that overlaps it by half."""
    found = detector.detect(image)
    return [any(overlap(face.box, one.box) >= _FOUND_IOU for one in found) for face in faces]


def shrunk(image: Image, face: Detection, width_px: float) -> tuple[Image, Detection]:
    """A picture averaged down until a face's box is so many pixels wide; the face in its pixels."""
    scale = width_px / face.box.width
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    box = Box(*(scale * side for side in (face.box.x, face.box.y, face.box.width, face.box.height)))
    return np.asarray(small, dtype=np.uint8), Detection(box, (face.landmarks * scale).astype(np.float32), face.score)


def turned(image: Image, degrees: float) -> tuple[Image, NDArray[np.float64]]:
    """A picture turned clockwise about its middle, with room for all of it; and (2, 3), where its points went."""
    height, width = image.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    matrix[:, 2] += (np.array([side, side]) - (width, height)) / 2
    out = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, dtype=np.uint8), np.asarray(matrix, dtype=np.float64)


def _main(faces: Sequence[Detection], image: Image) -> Detection | None:
    """The largest and most central face."""
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    return max(faces, key=lambda face: face.box.width - float(np.hypot(*(_centre(face.box) - middle))), default=None)


def _centre(box: Box) -> NDArray[np.float64]:
    return np.array([box.x + box.width / 2, box.y + box.height / 2])


def _at(faces: Iterable[Detection], place: NDArray[np.float64], within_px: float) -> Detection | None:
    near = [face for face in faces if float(np.hypot(*(_centre(face.box) - place))) < within_px]
    return max(near, key=lambda face: face.score, default=None)


def _measure_tilts(detector: Detector, network: OnnxNetwork, images: Iterable[Image]) -> dict[int, Tilted]:
    """Turn pictures by known angles and hold each answer against that for the picture as it is."""
    rows = {degrees: Tilted(Share(), [], []) for degrees in _TILTS_DEG}

    def answers(image: Image) -> list[tuple[int, float | None, float]]:
        upright = _main(detector.detect(image), image)
        if upright is None:
            return []
        expected = network.embed(align(image, upright.landmarks)[None])[0]
        roll = head_pose(upright.landmarks).roll_deg
        told: list[tuple[int, float | None, float]] = []
        for degrees in _TILTS_DEG:
            view, matrix = turned(image, degrees)
            place = matrix[:, :2] @ _centre(upright.box) + matrix[:, 2]
            face = _at(detector.detect(view), place, 0.5 * upright.box.width)
            if face is None:
                told.append((degrees, None, 0.0))
                continue
            try:
                embedding = network.embed(align(view, face.landmarks)[None])[0]
            except ContractError:
                told.append((degrees, None, 0.0))
                continue
            off = (head_pose(face.landmarks).roll_deg - roll - degrees + 180) % 360 - 180
            told.append((degrees, float(embedding @ expected), abs(off)))
        return told

    for degrees, cosine, off in itertools.chain.from_iterable(_in_threads(answers, images)):
        row = rows[degrees]
        row.found.count([cosine is not None])
        if cosine is not None:
            row.cosines.append(cosine)
            row.roll_errors_deg.append(off)
    return rows


def _in_threads(work: Callable[[Image], T], images: Iterable[Image]) -> Iterator[T]:
    """In order; a few pictures are worked on ahead, never all of them at once."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(_WORKERS) as pool:
        rest = iter(images)
        while some := tuple(itertools.islice(rest, _AHEAD)):
            yield from pool.map(work, some)


def run_detection(
    lfw_dir: Annotated[Path, typer.Option("--lfw-dir", "--dir", exists=True, file_okay=False, help="Pictures.")],
    teacher: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="YuNet's ONNX file.")],
    detector: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = MODELS / "detector.onnx",
    embedder: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = MODELS / "student.onnx",
    tilted: Annotated[int, typer.Option(min=0, help="Pictures that are turned, out of all.")] = 300,
    most: Annotated[int | None, typer.Option("--pictures", min=1, help="Take so many of all, by chance.")] = None,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Faces found of those the teacher sees (score over 0.7), in pictures as they are, shrunk and turned."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for path in lfw_dir.rglob("*.jpg"))
    if not paths:
        raise typer.BadParameter(f"{lfw_dir} holds no .jpg")
    paths = [paths[place] for place in sorted(rng.permutation(len(paths))[:most])]
    widths = dict(zip(paths, rng.uniform(_BANDS[0][0], _BANDS[-1][1], len(paths)), strict=True))
    ours, theirs = open_detector(detector), YuNetDetector(teacher, score_threshold=_TEACHER_SCORE)
    whole, bands = Share(), {band: Share() for band in _BANDS}

    def compare(path: Path) -> tuple[list[bool], float, list[bool]]:
        image = decode(path.read_bytes(), ImageLimits())
        faces = theirs.detect(image)
        main = _main(faces, image)
        if main is None or main.box.width <= widths[path]:
            return hits(ours, image, faces), widths[path], []
        small, face = shrunk(image, main, widths[path])
        return hits(ours, image, faces), widths[path], hits(ours, small, [face])

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(_WORKERS) as pool:
        bar = track(pool.map(compare, paths), "detecting", total=len(paths), console=Console(stderr=True))
        for at_size, width, when_shrunk in bar:
            whole.count(at_size)
            next(share for (low, high), share in bands.items() if low <= width <= high).count(when_shrunk)
    chosen = [paths[place] for place in sorted(rng.permutation(len(paths))[:tilted])]
    tilts = _measure_tilts(
        ours, OnnxNetwork(embedder, threads=1), (decode(path.read_bytes(), ImageLimits()) for path in chosen)
    )
    small = Share(sum(one.found for one in bands.values()), sum(one.of for one in bands.values()))
    if as_json:
        typer.echo(json.dumps(_as_json(whole, small, bands, tilts)))
        return
    table = Table("faces of the teacher", "found", "of", "recall")
    named = [("as they are", whole), ("shrunk to 16 to 32 px", small)]
    named += [(f"of these {low} to {high} px", share) for (low, high), share in bands.items()]
    for name, share in named:
        table.add_row(name, f"{share.found:,}", f"{share.of:,}", f"{share.rate:.4f}")
    show(table)
    table = Table("tilt", "found", "of", "mean cosine to upright", "5th percentile", "median roll error")
    for degrees, row in tilts.items():
        told = ("-", "-", "-")
        if row.cosines:
            low = float(np.quantile(row.cosines, 0.05))
            told = (f"{np.mean(row.cosines):.3f}", f"{low:.3f}", f"{np.median(row.roll_errors_deg):.1f}")
        table.add_row(f"{degrees}", f"{row.found.found:,}", f"{row.found.of:,}", *told)
    show(table)


def _as_json(
    whole: Share, small: Share, bands: dict[tuple[int, int], Share], tilts: dict[int, Tilted]
) -> dict[str, object]:
    return {
        "as_they_are": asdict(whole),
        "shrunk": asdict(small),
        "bands": {f"{low}-{high}": asdict(share) for (low, high), share in bands.items()},
        "tilts": {
            degrees: {**asdict(row.found), "mean_cosine": float(np.mean(row.cosines)) if row.cosines else None}
            for degrees, row in tilts.items()
        },
    }
