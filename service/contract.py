"""The contract that training and serving share: how a face becomes the input of the embedding network.

Everything that changes what an embedding means lives here and nowhere else: the five-point template, the warp,
the colour order, the normalisation, and the `space_id` that names the resulting embedding space. Level 0: this
module imports nothing of the project.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

ManifestT = TypeVar("ManifestT", bound=BaseModel)

CROP_SIDE_PX = 112

# Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner, in pixels of the 112 x 112 crop.
# Source: the reference points published with ArcFace (Deng et al., CVPR 2019).
TEMPLATE: NDArray[np.float32] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
TEMPLATE.setflags(write=False)

# Below this magnification a bilinear warp skips source pixels, and the aliasing moves the embedding.
_AREA_BELOW_SCALE = 0.5
_MIN_LANDMARK_SPREAD_PX = 1e-3


class ContractError(ValueError):
    """The input cannot be brought into the form that the contract demands."""


def alignment_transform(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Least-squares similarity that carries `landmarks` onto the template.

    Args:
        landmarks: (5, 2) float, pixels, in the order of `TEMPLATE`.

    Returns:
        (2, 3) float64 matrix for `cv2.warpAffine`.

    Raises:
        ContractError: wrong shape, a value that is not finite, or all points in one place.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991). In
    the plane a similarity without reflection is one complex factor, so its closed form needs no SVD.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ContractError(f"landmarks must be five finite points, not an array of shape {points.shape}")
    source = points[:, 0] + 1j * points[:, 1]
    target = TEMPLATE[:, 0].astype(np.float64) + 1j * TEMPLATE[:, 1]
    source_mean, target_mean = source.mean(), target.mean()
    spread = float(np.sum(np.abs(source - source_mean) ** 2))
    if spread < _MIN_LANDMARK_SPREAD_PX:
        raise ContractError("landmarks coincide")
    factor = np.sum(np.conj(source - source_mean) * (target - target_mean)) / spread
    if abs(factor) < 1e-6:
        raise ContractError("landmarks have no orientation in common with the template")
    shift = target_mean - factor * source_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def magnification(landmarks: NDArray[np.float32]) -> float:
    """Pixels of the crop for one pixel of the picture that the landmarks are in. Raises ContractError as `align`."""
    matrix = alignment_transform(landmarks)
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Cut the face out of a picture, upright and at the size the network expects.

    Args:
        image: (height, width, 3) uint8, BGR.
        landmarks: (5, 2) float, pixels of `image`.

    Returns:
        (112, 112, 3) uint8, BGR; what lies outside the picture is black.

    Raises:
        ContractError: the landmarks are degenerate.
    """
    return cut_out(image, alignment_transform(landmarks), CROP_SIDE_PX)


def cut_out(image: NDArray[np.uint8], matrix: NDArray[np.float64], side_px: int) -> NDArray[np.uint8]:
    """Cut a square out of a picture, turned and scaled.

    Args:
        image: (height, width, 3) uint8.
        matrix: (2, 3) similarity that carries points of the picture into the square.
        side_px: of the square.

    Returns:
        (side_px, side_px, 3) uint8; what lies outside the picture is black.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < _AREA_BELOW_SCALE:
        image, matrix = _shrink_around(image, matrix, scale, side_px)
    return np.asarray(cv2.warpAffine(image, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def _shrink_around(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], scale: float, side_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average the square's part of the picture down so that the warp that follows is near one to one."""
    corners = np.array([[0, 0, 1], [side_px, 0, 1], [0, side_px, 1], [side_px, side_px, 1]], dtype=np.float64)
    in_image = corners @ cv2.invertAffineTransform(matrix).T
    height, width = image.shape[:2]
    margin = int(np.ceil(2 / scale))
    left, top = (int(v) for v in np.clip(np.floor(in_image.min(axis=0)) - margin, 0, [width - 1, height - 1]))
    right, bottom = (
        int(v) for v in np.clip(np.ceil(in_image.max(axis=0)) + margin, [left + 1, top + 1], [width, height])
    )
    region = image[top:bottom, left:right]
    target = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    shrunk = np.asarray(cv2.resize(region, target, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    step = np.array([(right - left) / target[0], (bottom - top) / target[1]])
    # Pixel centres, not corners, correspond: source = (shrunk + 0.5) * step - 0.5 + offset.
    offset = 0.5 * step - 0.5 + np.array([left, top])
    adjusted = matrix.copy()
    adjusted[:, :2] = matrix[:, :2] * step
    adjusted[:, 2] = matrix[:, 2] + matrix[:, :2] @ offset
    return shrunk, adjusted


class Preprocessing(BaseModel):
    """How a stack of crops becomes the tensor that the embedding network reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alignment: Literal["similarity-5pt-112"] = "similarity-5pt-112"
    resampling: Literal["bilinear-area-below-half"] = "bilinear-area-below-half"
    colour_order: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    side_px: Literal[112] = 112
    mean: float = 127.5
    scale: float = 0.0078125


def to_network_input(crops: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Normalise crops: BGR bytes to the network's planar floats.

    Args:
        crops: (n, 112, 112, 3) uint8, BGR.

    Returns:
        (n, 3, 112, 112) float32, RGB, `(value - mean) * scale`, contiguous.

    Raises:
        ContractError: wrong shape or type.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        raise ContractError(f"crops must be uint8 of shape (n, 112, 112, 3), not {crops.dtype} of {crops.shape}")
    planar = np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
    planar -= preprocessing.mean
    planar *= preprocessing.scale
    return planar


def normalise_embeddings(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project rows onto the unit hypersphere.

    Args:
        raw: (n, d) float.

    Returns:
        (n, d) float32 of unit length.

    Raises:
        ContractError: a row is zero or holds a value that is not finite.
    """
    vectors = np.asarray(raw, dtype=np.float32)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms < 1e-9).any():
        raise ContractError("an embedding is zero or not finite")
    unit: NDArray[np.float32] = (vectors / norms).astype(np.float32)
    return unit


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def space_id(weights_sha256: str, preprocessing: Preprocessing, dimension: int) -> str:
    """Name of an embedding space: equal names mean that embeddings may be compared.

    Hashes the weights, the alignment (template coordinates included), the preprocessing and the dimension.
    """
    parts = {
        "weights": weights_sha256,
        "template": TEMPLATE.tolist(),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "dimension": dimension,
    }
    return "sf1-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class ImpostorTail(BaseModel):
    """A generalised Pareto distribution of what the highest impostor cosines exceed `start` by.

    `rate * (1 + shape * (s - start) / scale) ** (-1 / shape)` of all impostor comparisons reach `s`, from `start` on.

    Attributes:
        start: cosine from which on it holds.
        rate: share of comparisons beyond `start`.
        shape, scale: of the distribution, the latter in cosines.
        exceedances: comparisons that it was fitted to.
        deviation: largest difference between its distribution function and theirs (Kolmogorov and Smirnov).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: float = Field(gt=-1, lt=1)
    rate: float = Field(gt=0, lt=1)
    shape: float = Field(gt=-1, lt=1)
    scale: float = Field(gt=0)
    exceedances: int = Field(gt=0)
    deviation: float = Field(ge=0, le=1)


class ImpostorScores(BaseModel):
    """Cosines between pictures of different people, measured at export: the ground of every threshold.

    Attributes:
        mean: of the cosines.
        std: of the cosines.
        comparisons: how many were measured.
        source: on which pictures.
        body: cosines and the share of comparisons that reach them, ascending, up to the tail; without it they are
            taken as normally distributed.
        tail: beyond the body.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(ge=-1, le=1)
    std: float = Field(gt=0, le=1)
    comparisons: int = Field(gt=0)
    source: str
    body: tuple[tuple[float, float], ...] = ()
    tail: ImpostorTail | None = None

    @model_validator(mode="after")
    def _rates_fall(self) -> Self:
        points = list(self.body)
        if (self.tail is None) != (not points):
            raise ValueError("a body and a tail come together")
        if self.tail is not None:
            points.append((self.tail.start, self.tail.rate))
        if any(not 0 < rate < 1 for _, rate in points):
            raise ValueError("rates lie between 0 and 1")
        if any(low[0] >= high[0] or low[1] <= high[1] for low, high in pairwise(points)):
            raise ValueError("cosines ascend and rates fall, from the body to the tail")
        return self


class MateScores(BaseModel):
    """Cosines between different pictures of one person, measured at export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(ge=-1, le=1)
    std: float = Field(ge=0, le=1)
    comparisons: int = Field(gt=0)


class ModelManifest(BaseModel):
    """What a model file is: written beside it by `model_training`, checked before it is loaded.

    An embedder carries `preprocessing`, `dimension`, `space_id` and `impostor_scores`, and `mate_scores` where its
    export could measure them; the others none of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    role: Literal["embedder", "detector", "mask-classifier"]
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.onnx$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(gt=0)
    parameters: int = Field(gt=0)
    licence: str
    teacher: str
    data: list[str]
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    dimension: int | None = Field(default=None, ge=1, le=4096)
    space_id: str | None = None
    impostor_scores: ImpostorScores | None = None
    mate_scores: MateScores | None = None

    @model_validator(mode="after")
    def _embedder_names_its_space(self) -> Self:
        embedder_fields = (self.preprocessing, self.dimension, self.space_id, self.impostor_scores, self.mate_scores)
        if self.role != "embedder":
            if any(field is not None for field in embedder_fields):
                raise ValueError(f"a {self.role} has no embedding space")
            return self
        if self.preprocessing is None or self.dimension is None:
            raise ValueError("an embedder states its preprocessing and dimension")
        expected = space_id(self.sha256, self.preprocessing, self.dimension)
        if self.space_id != expected:
            raise ValueError(f"space_id is {self.space_id}, but weights and preprocessing give {expected}")
        return self


def read_manifest(model_path: Path) -> ModelManifest:
    """Read `<model>.json` beside a model file and check the file against it.

    Raises:
        ContractError: the manifest is missing or wrong, or the file is not the one it describes.
    """
    manifest = parse_manifest(model_path, ModelManifest)
    check_file(model_path, manifest.file, manifest.sha256)
    return manifest


def parse_manifest(model_path: Path, kind: type[ManifestT]) -> ManifestT:
    """Read `<model>.json` beside a model file. Raises ContractError when it is missing or not of the kind."""
    manifest_path = model_path.with_suffix(".json")
    try:
        return kind.model_validate_json(manifest_path.read_bytes())
    except OSError as error:
        raise ContractError(f"no manifest at {manifest_path}") from error
    except ValueError as error:
        raise ContractError(f"manifest {manifest_path} is not valid: {error}") from error


def check_file(model_path: Path, file: str, sha256: str) -> None:
    """Raises ContractError when a model file is not the one of this name and SHA-256."""
    if file != model_path.name:
        raise ContractError(f"manifest {model_path.with_suffix('.json')} describes {file}, not {model_path.name}")
    try:
        digest = sha256_of_file(model_path)
    except OSError as error:
        raise ContractError(f"no model at {model_path}") from error
    if digest != sha256:
        raise ContractError(f"{model_path} is not the file that its manifest describes (SHA-256 differs)")
