"""Ports that are dictionaries, and the use cases over them. A picture is the list of its face numbers: b"1 3"."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from service.calibration import ImpostorCurve
from service.domain import Box, Detection, FaceQuality, ImageDamaged
from service.identification import (
    CustodyService,
    EnrolmentService,
    FaceReader,
    IdentificationService,
    crop_digest,
)
from service.journal import LogJournal
from service.ports import AnalysedPicture, FoundFace
from tests.contract.reference import ReferenceGallery, ReferenceState

DIMENSION = 4
GALLERY = "staff"
GOOD = FaceQuality(side_px=90.0, detection_score=0.95, sharpness=20.0, yaw=0.0, roll_deg=0.0)
BLURRED = replace(GOOD, issues=("face-blurred",))
SHARP = replace(GOOD, side_px=200.0)


def at(cosine):
    """A unit vector at a cosine to `at(1)`."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0, 0], dtype=np.float32)


ADA, EVE, NEAR_ADA = 1, 2, 3
VECTORS = {
    ADA: at(1.0),
    EVE: np.array([0, 0, 1, 0], dtype=np.float32),
    NEAR_ADA: at(0.9),
    4: at(0.32),
    5: at(0.25),
    6: at(0.2),
}


def face(key, quality=GOOD):
    detection = Detection(Box(10, 10, 90, 90), np.zeros((5, 2), np.float32), quality.detection_score)
    strict = () if quality is SHARP else ("face-too-small",)
    return FoundFace(detection, quality, np.full((112, 112, 3), key, dtype=np.uint8), strict)


def digest(key):
    return crop_digest(face(key).crop)


class Analyser:
    """A picture is the list of its face numbers: b"1 3" shows Ada and one who resembles her."""

    identity = "world"

    def __init__(self):
        self.asked = []

    async def analyse(self, picture, *, max_faces, views=()):
        self.asked.append(max_faces)
        if picture == b"damaged":
            raise ImageDamaged("damaged")
        quality = {ord("!"): BLURRED, ord("*"): SHARP}
        faces = [face(int(word.rstrip(b"!*")), quality.get(word[-1], GOOD)) for word in picture.split()]
        return AnalysedPicture(640, 480, tuple(faces[:max_faces]), len(faces), {"decode": 1.0, "detect": 2.0})

    async def encode(self, crop):
        return b"PNG of %d" % crop[0, 0, 0]


class Embedder:
    dimension = DIMENSION
    space_id = "sf1-test"

    def __init__(self):
        self.embedded = []

    async def embed(self, crops):
        keys = [int(crop[0, 0, 0]) for crop in crops]
        self.embedded.append(keys)
        return np.stack([VECTORS[key] for key in keys])


class Cache:
    def __init__(self):
        self.entries = {}
        self.pictures = {}

    async def get(self, keys):
        return [self.entries.get(key) for key in keys]

    async def put(self, entries):
        self.entries.update(entries)

    async def seen(self, picture):
        known = self.pictures.get(picture)
        return known if known and all(face.key in self.entries for face in known.faces) else None

    async def saw(self, picture, known):
        self.pictures[picture] = known
        self.entries.update({face.key: face.embedding for face in known.faces})

    async def remove(self, keys):
        return sum(self.entries.pop(key, None) is not None for key in keys)

    async def close(self):
        self.entries.clear()


class Services(NamedTuple):
    enrolment: EnrolmentService
    identification: IdentificationService
    custody: CustodyService


@dataclass
class World:
    analyser: Analyser = field(default_factory=Analyser)
    embedder: Embedder = field(default_factory=Embedder)
    cache: Cache = field(default_factory=Cache)
    journal: LogJournal = field(default_factory=LogJournal)
    gallery: ReferenceGallery = field(default_factory=lambda: ReferenceGallery(ReferenceState(), DIMENSION))

    def services(self, *, quality_gate="standard"):
        # So that one comparison at a rate of 1 % needs 2.3263 deviations, a cosine of 0.2326.
        curve = ImpostorCurve(mean=0.0, std=0.1)
        reader = FaceReader(self.analyser, self.embedder, self.cache, max_faces=5)
        rates = {"target_fpir": 0.01, "quality_gate": quality_gate}
        return Services(
            EnrolmentService(reader, self.gallery, self.journal, curve, **rates),
            IdentificationService(reader, self.gallery, curve, **rates),
            CustodyService(self.gallery, self.cache, self.journal),
        )
