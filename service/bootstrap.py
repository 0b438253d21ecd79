"""The only wiring: settings in, a running service out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.cache import NullCache, RedisCache
from service.calibration import ImpostorCurve
from service.contract import ContractError, read_manifest, sha256_of_file
from service.domain import ServiceIdentity, StorageUnusable
from service.gallery.embedded import EmbeddedGallery
from service.identification import IdentificationService
from service.ports import EmbeddingCache, Gallery
from service.settings import Settings
from service.telemetry import BATCH_SIZE, GALLERY_RECALL
from service.vision.analysis import ThreadedAnalyser
from service.vision.detection import YuNetDetector
from service.vision.embedding import BatchedEmbedder, OnnxNetwork
from service.vision.imaging import ImageLimits
from service.vision.quality import QualityGate


@dataclass(frozen=True, slots=True)
class Container:
    """What the outer levels may use."""

    settings: Settings
    identity: ServiceIdentity
    service: IdentificationService
    gallery: Gallery


async def build(settings: Settings, stack: AsyncExitStack) -> Container:
    """Open models, gallery and cache; `stack` closes them in reverse.

    Raises:
        ContractError: a model file is missing, damaged or of the wrong kind.
        SpaceMismatch, FolderInUse, StorageUnusable: the data folder cannot be served.
        GalleryUnavailable: Milvus does not answer.
    """
    network = await asyncio.to_thread(
        OnnxNetwork, settings.embedder_path, threads=settings.embed_threads, providers=settings.providers
    )
    scores = network.manifest.impostor_scores
    if scores is None:
        raise ContractError(
            f"the manifest of {settings.embedder_path} states no impostor scores; export the model again"
        )
    detector = await asyncio.to_thread(
        YuNetDetector,
        settings.detector_path,
        score_threshold=settings.detection_threshold,
        max_side_px=settings.detection_max_side_px,
        instances=settings.vision_workers,
    )
    # Opened before what uses it and so closed after: an enrolment in flight can still be stored.
    gallery = await asyncio.to_thread(_open_gallery, settings, network)
    stack.push_async_callback(gallery.close)
    cache = _cache(settings, network)
    stack.push_async_callback(cache.close)
    embedder = BatchedEmbedder(
        network,
        max_batch=settings.embed_max_batch,
        max_pending=settings.embed_max_pending,
        deadline_s=settings.queue_deadline_s,
        workers=settings.embed_workers,
        on_batch=BATCH_SIZE.observe,
    )
    stack.push_async_callback(embedder.close)
    gate = QualityGate(min_detection_score=settings.detection_threshold)
    analyser = ThreadedAnalyser(
        detector,
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.min_image_side_px),
        gate=gate,
        workers=settings.vision_workers,
        max_pending=settings.vision_max_pending,
        deadline_s=settings.queue_deadline_s,
    )
    stack.push_async_callback(analyser.close)
    service = IdentificationService(
        analyser,
        embedder,
        cache,
        gallery,
        ImpostorCurve.of(scores),
        target_fpir=settings.target_fpir,
        max_faces=settings.max_faces,
        enforce_quality=settings.quality_gate == "standard",
    )
    identity = ServiceIdentity(
        embedder=network.manifest.name,
        detector=await asyncio.to_thread(_detector_name, settings.detector_path),
        space_id=network.space_id,
        dimension=network.dimension,
    )
    return Container(settings=settings, identity=identity, service=service, gallery=gallery)


def _open_gallery(settings: Settings, network: OnnxNetwork) -> Gallery:
    if settings.milvus_uri is None:
        return EmbeddedGallery.open(
            settings.data_dir,
            space_id=network.space_id,
            dimension=network.dimension,
            max_pending=settings.max_pending_writes,
            exact_up_to=settings.gallery_exact_up_to,
            matrix=settings.gallery_matrix,
            on_recall=GALLERY_RECALL.set,
            progress=_ProgressLog(),
        )
    try:
        from service.gallery.milvus.gallery import MilvusGallery  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise StorageUnusable(f"a gallery in Milvus needs: pip install 'shrinkface[milvus]' ({error})") from error
    return MilvusGallery.open(
        settings.milvus_uri,
        token=settings.milvus_token.get_secret_value(),
        prefix=settings.milvus_prefix,
        space_id=network.space_id,
        dimension=network.dimension,
        timeout_s=settings.milvus_timeout_s,
        max_pending=settings.max_pending_writes,
    )


class _ProgressLog:
    """Logs how far the indexes are built, at every tenth, where that takes long enough to ask."""

    _WORTH_TELLING = 20_000

    def __init__(self) -> None:
        self._next = 0.1

    def __call__(self, done: int, total: int) -> None:
        if total >= self._WORTH_TELLING and done >= self._next * total:
            structlog.get_logger().info("indexing faces from the database", done=done, total=total)
            self._next = done // (total / 10) / 10 + 0.1


def _cache(settings: Settings, network: OnnxNetwork) -> EmbeddingCache:
    if settings.redis_url is None:
        return NullCache()
    return RedisCache(
        str(settings.redis_url),
        space_id=network.space_id,
        dimension=network.dimension,
        timeout_s=settings.redis_timeout_s,
        ttl_s=settings.redis_ttl_s,
    )


def _detector_name(path: Path) -> str:
    """The manifest's name, or the file's name and hash for a detector that came without one."""
    if path.with_suffix(".json").exists():
        return read_manifest(path).name
    return f"{path.stem}@{sha256_of_file(path)[:12]}"
