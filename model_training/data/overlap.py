"""Which training faces are in a test set: by the name of their person, by their embedding, or by their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from model_training.data.faces import AlignedFaces
from model_training.data.pictures import person_of
from model_training.teachers.networks import Teacher
from service.contract import normalise_embeddings

_BATCH = 64
# Rows that are compared with all test faces at once.
_BLOCK = 1024
# 256 bits: 64 do not tell aligned faces apart, whose coarse shapes are all alike.
_HASH_SIDE_PX, _HASH_BLOCK = 32, 16
HASH_BITS = _HASH_BLOCK**2


class Reason(StrEnum):
    """By what a training face was found to be in the test set."""

    NAME = "name"
    EMBEDDING = "embedding"
    PICTURE = "picture"


@dataclass(frozen=True)
class Overlap:
    """A training face that must not train.

    Attributes:
        row: of the training face.
        source: its picture.
        test_source: the test picture most like it by embedding, or by pixels where only these are alike; empty where
            the name alone was found.
        cosine: between both embeddings.
        differing_bits: of their perceptual hashes.
        reasons: by what it was found.
    """

    row: int
    source: str
    test_source: str
    cosine: float
    differing_bits: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Limits:
    """From where on two crops are taken to be of one picture.

    By default, where the pictures of LFW that were found to show one person end and the others begin: see
    docs/training.md.

    Attributes:
        cosine: least.
        bits: of the 256 of their hashes, at most so many differ.
    """

    cosine: float = 0.75
    bits: int = 40


def find_overlaps(
    train: AlignedFaces, test: AlignedFaces, network: Teacher, limits: Limits, names: frozenset[str] = frozenset()
) -> list[Overlap]:
    """Training faces whose person is named in a test set, or whose picture is nearly one of a test set.

    Each training face is compared with all test faces. Its embedding finds other cuts, sizes and colours of a picture;
    its hash, of the crop or its mirror image, finds copies that the network sees differently.

    Args:
        train, test: prepared by the same detector.
        network: embeds both.
        limits: see there.
        names: of people in the test set.

    Returns:
        In the order of the training faces.
    """
    test_embeddings, test_hashes = _embedded(test, network), perceptual_hashes(test.crops)
    found: list[Overlap] = []
    for start in range(0, len(train.crops), _BLOCK):
        crops = np.asarray(train.crops[start : start + _BLOCK])
        block = AlignedFaces(crops, train.sources[start : start + _BLOCK])
        cosines = _embedded(block, network) @ test_embeddings.T
        mirrored = np.ascontiguousarray(crops[:, :, ::-1])
        bits = np.minimum(*(differing_bits(perceptual_hashes(each), test_hashes) for each in (crops, mirrored)))
        for row, source in enumerate(block.sources):
            overlap = _judged(start + row, source, test, cosines[row], bits[row], limits, names)
            if overlap is not None:
                found.append(overlap)
    return found


def _judged(
    row: int,
    source: str,
    test: AlignedFaces,
    cosines: NDArray[np.float32],
    bits: NDArray[np.uint16],
    limits: Limits,
    names: frozenset[str],
) -> Overlap | None:
    by_embedding, by_picture = int(cosines.argmax()), int(bits.argmin())
    reasons = []
    if person_of(source) in names:
        reasons.append(Reason.NAME)
    if cosines[by_embedding] >= limits.cosine:
        reasons.append(Reason.EMBEDDING)
    if bits[by_picture] <= limits.bits:
        reasons.append(Reason.PICTURE)
    if not reasons:
        return None
    nearest = by_picture if Reason.PICTURE in reasons and Reason.EMBEDDING not in reasons else by_embedding
    shown = "" if reasons == [Reason.NAME] else test.sources[nearest]
    return Overlap(row, source, shown, float(cosines[nearest]), int(bits[nearest]), tuple(reasons))


def perceptual_hashes(crops: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 4) uint64: 256 bits a crop, few of which differ where pictures look alike.

    Each bit says whether one of the lowest 16 x 16 frequencies of the grey picture at 32 x 32 pixels, the sums of rows
    and columns aside, is above their median.

    Args:
        crops: (n, 112, 112, 3) uint8, BGR.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), section 3.2.1.
    """
    hashes = np.empty((len(crops), HASH_BITS // 64), dtype=np.uint64)
    for row, crop in enumerate(crops):
        grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, (_HASH_SIDE_PX, _HASH_SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
        low = np.asarray(cv2.dct(small))[1 : _HASH_BLOCK + 1, 1 : _HASH_BLOCK + 1]
        hashes[row] = np.packbits(low > np.median(low)).view(np.uint64)
    return hashes


def differing_bits(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """(n, m) uint16: bits that differ between each of (n, 4) and each of (m, 4) hashes."""
    counted = np.zeros((len(first), len(second)), dtype=np.uint16)
    for word in range(first.shape[1]):
        counted += np.bitwise_count(first[:, None, word] ^ second[None, :, word])
    return counted


def _embedded(faces: AlignedFaces, network: Teacher) -> NDArray[np.float32]:
    return np.concatenate([normalise_embeddings(network.embed(crops)) for crops in _batches(faces)])


def _batches(faces: AlignedFaces) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(faces.crops), _BATCH):
        yield np.asarray(faces.crops[start : start + _BATCH])
