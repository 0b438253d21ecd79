"""Pictures for the load: of people who are enrolled, of strangers, and of people who come while it runs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.demo import jpeg, load_portraits
from service.settings import Settings
from service.vision.detection import YuNetDetector

SIDE_PX = 250
_QUALITY = 95
# Of the people with a single picture, so many become newcomers and the others strangers.
_NEWCOMERS = 1_000
# Of the people with several pictures, so many are enrolled.
_ENROLLED = 1_200
# A face takes about this part of the side of an LFW picture.
_FACE_SHARE = 0.42
_VERSIONS = {"mates": 600, "strangers": 300, "newcomers": 120}

Pixels = NDArray[np.uint8]
Listed = list[tuple[str, str]]


@dataclass(frozen=True)
class PictureSet:
    """A folder of `GROUP/NAME/picture.jpg`, each of `SIDE_PX` squared.

    `enrolled` has one picture of each person of the gallery, `mates` others of them, `strangers` people who are not
    there, and `newcomers` those who are enrolled under load.
    """

    root: Path

    @property
    def enrolled(self) -> Path:
        """A folder that `shrinkface import` reads."""
        return self.root / "enrolled"

    def listed(self, group: str) -> Listed:
        """Path and name of every picture of a group, sorted."""
        return [(str(path), path.parent.name) for path in sorted((self.root / group).glob("*/*.jpg"))]

    def probes(self, seed: int, people: frozenset[str]) -> Listed:
        """Mates and strangers, named if they are among the people, in an order that follows from the seed."""
        listed = self.listed("mates") + self.listed("strangers")
        everything = [(path, name if name in people else "") for path, name in listed]
        return [everything[i] for i in np.random.default_rng(seed).permutation(len(everything)).tolist()]

    def newcomers(self, seed: int) -> Listed:
        """In an order that follows from the seed."""
        listed = self.listed("newcomers")
        return [listed[i] for i in np.random.default_rng(seed).permutation(len(listed)).tolist()]


def picture_set(parent: Path, lfw_dir: Path | None) -> PictureSet:
    """The pictures of LFW, or versions of two portraits where it is not given; written once, then reused."""
    name = "portraits" if lfw_dir is None else "lfw-" + hashlib.sha256(os.fsencode(lfw_dir.resolve())).hexdigest()[:8]
    root = parent / name
    if not root.exists():
        half = root.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        written = _of_lfw(lfw_dir) if lfw_dir is not None else _of_portraits()
        for group, person, stem, picture in written:
            folder = half / group / person
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{stem}.jpg").write_bytes(picture)
        half.rename(root)
    return PictureSet(root)


def squared(path: Path) -> bytes:
    """A picture of SIDE_PX squared: the file as it is, or resized where it has another size.

    Raises:
        ValueError: it cannot be read.
    """
    content = path.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is no picture")
    if pixels.shape[:2] == (SIDE_PX, SIDE_PX):
        return content
    grown = cv2.resize(pixels, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    return jpeg(np.asarray(grown, dtype=np.uint8), _QUALITY)


def _of_lfw(lfw_dir: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Group, person, stem and content; people in an order of their own, so that no alphabet decides."""
    people = sorted(folder for folder in lfw_dir.iterdir() if folder.is_dir())
    if not people:
        raise ValueError(f"{lfw_dir} has no folders of pictures")
    enrolled = newcomers = 0
    for number in np.random.default_rng(0).permutation(len(people)).tolist():
        folder = people[number]
        pictures = sorted(folder.glob("*.jpg"))
        if len(pictures) > 1 and enrolled < _ENROLLED:
            enrolled += 1
            groups = ["enrolled"] + ["mates"] * (len(pictures) - 1)
        elif len(pictures) == 1 and newcomers < _NEWCOMERS:
            newcomers += 1
            groups = ["newcomers"]
        else:
            groups = ["strangers"] * len(pictures)
        for group, picture in zip(groups, pictures, strict=True):
            yield group, folder.name, picture.stem, squared(picture)


def _of_portraits() -> Iterator[tuple[str, str, str, bytes]]:
    """One of the two is enrolled, and comes again under other ids; the other is the stranger."""
    rng = np.random.default_rng(0)
    known, stranger = load_portraits()
    detector = YuNetDetector(Settings().detector_path)
    faces = {}
    for portrait in (known, stranger):
        box = max(detector.detect(portrait.pixels), key=lambda face: face.score).box
        faces[portrait.person_id] = (box.x + box.width / 2, box.y + box.height / 2, box.height)
    plain = _version(known.pixels, faces[known.person_id], None)
    yield "enrolled", known.person_id, "0", jpeg(plain, _QUALITY)
    for group, portrait in (("mates", known), ("strangers", stranger), ("newcomers", known)):
        for number in range(_VERSIONS[group]):
            pixels = _version(portrait.pixels, faces[portrait.person_id], rng)
            yield group, portrait.person_id, f"{number:04d}", jpeg(pixels, int(rng.integers(70, 96)))


def _version(pixels: Pixels, face: tuple[float, float, float], rng: np.random.Generator | None) -> Pixels:
    """A face and its surroundings, turned, moved, scaled, lit and mirrored at random."""
    x, y, height = face
    scale = _FACE_SHARE * SIDE_PX / height
    degrees = 0.0
    if rng is not None:
        degrees, scale = float(rng.uniform(-10, 10)), scale * float(rng.uniform(0.85, 1.15))
        x, y = x + float(rng.uniform(-0.2, 0.2)) * height, y + float(rng.uniform(-0.2, 0.2)) * height
    matrix = cv2.getRotationMatrix2D((x, y), degrees, scale)
    matrix[:, 2] += SIDE_PX / 2 - np.array([x, y])
    # Area weights of its own, since warping alone skips pixels when it shrinks.
    blur = max(0.0, 0.35 / scale - 0.35)
    soft = cv2.GaussianBlur(pixels, (0, 0), blur) if blur > 0.2 else pixels
    out = cv2.warpAffine(soft, matrix, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE)
    if rng is not None:
        if rng.random() < 0.5:
            out = out[:, ::-1]
        out = np.clip(out * rng.uniform(0.6, 1.2), 0, 255)
    return np.ascontiguousarray(out, dtype=np.uint8)
