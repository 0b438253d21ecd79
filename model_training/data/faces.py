"""Aligned faces on disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.contract import ContractError, align
from service.vision.detection import YuNetDetector


class DataError(ValueError):
    """A data folder is not what it should be."""


@dataclass(frozen=True)
class AlignedFaces:
    """Aligned crops and where each came from.

    Attributes:
        crops: (n, 112, 112, 3) uint8, BGR, memory-mapped.
        sources: the picture of each crop, relative to the folder it was read from.
    """

    crops: NDArray[np.uint8]
    sources: list[str]

    @classmethod
    def load(cls, folder: Path) -> AlignedFaces:
        """Open a folder that `prepare_faces` wrote.

        Raises:
            DataError: it is incomplete.
        """
        try:
            sources = json.loads((folder / "sources.json").read_text())
            crops = np.load(folder / "crops.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} holds no prepared faces") from error
        if len(sources) != len(crops):
            raise DataError(f"{folder} has {len(crops)} crops but {len(sources)} sources")
        return cls(crops, sources)

    def people(self) -> list[str]:
        """The sub-folder that each crop's picture lay in, by which data sets name people."""
        return [Path(source).parent.as_posix() for source in self.sources]


def prepare_faces(pictures: list[Path], root: Path, detector: YuNetDetector, out: Path) -> int:
    """Detect the main face of each picture, align it by the service's contract, and store the crops.

    Pictures without a face are left out. Returns the number of faces stored.
    """
    out.mkdir(parents=True, exist_ok=True)

    def crop_of(path: Path) -> NDArray[np.uint8] | None:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            return None
        image = np.asarray(image, dtype=np.uint8)
        faces = detector.detect(image)
        if not faces:
            return None
        main = max(faces, key=lambda face: face.box.width * face.box.height)
        try:
            return align(image, main.landmarks)
        except ContractError:
            return None

    with ThreadPoolExecutor(2) as pool:
        found = list(tqdm(pool.map(crop_of, pictures), total=len(pictures), unit="picture", desc="aligning"))
    crops = [crop for crop in found if crop is not None]
    sources = [str(path.relative_to(root)) for path, crop in zip(pictures, found, strict=True) if crop is not None]
    if not crops:
        raise DataError(f"no face in any of {len(pictures)} pictures")
    np.save(out / "crops.npy", np.stack(crops))
    (out / "sources.json").write_text(json.dumps(sources))
    return len(crops)
