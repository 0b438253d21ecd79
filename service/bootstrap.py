"""The only wiring: settings in, a running service out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.access import Access, KeyFile, LocalLimiter, NullLimiter, RateLimiter, RedisLimiter
from service.cache import NullCache, RedisCache
from service.calibration import ImpostorCurve
from service.contract import ContractError, read_manifest, sha256_of_file
from service.domain import DomainError, ServiceIdentity, StorageUnusable
from service.gallery.embedded import EmbeddedGallery
from service.identification import CustodyService, EnrolmentService, FaceReader, IdentificationService
from service.journal import LogJournal
from service.ports import EmbeddingCache, Gallery, Journal
from service.settings import Settings
from service.telemetry import BATCH_SIZE, GALLERY_RECALL
from service.vision.analysis import ThreadedAnalyser
from service.vision.detection import YuNetDetector
from service.vision.embedding import BatchedEmbedder, OnnxNetwork
from service.vision.imaging import ImageLimits
from service.vision.quality import QualityGate

_PRUNE_EVERY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Container:
    """What the outer levels may use."""

    settings: Settings
    identity: ServiceIdentity
    access: Access
    enrolment: EnrolmentService
    identification: IdentificationService
    custody: CustodyService
    gallery: Gallery
    journal: Journal


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
    gallery, journal = await asyncio.to_thread(_open_gallery, settings, network)
    stack.push_async_callback(gallery.close)
    stack.push_async_callback(journal.close)
    cache = _cache(settings, network)
    stack.push_async_callback(cache.close)
    access = await asyncio.to_thread(_access, settings)
    stack.push_async_callback(access.close)
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
    curve = ImpostorCurve.of(scores)
    reader = FaceReader(analyser, embedder, cache, max_faces=settings.max_faces)
    custody = CustodyService(gallery, cache, journal)
    stack.push_async_callback(_ended, asyncio.create_task(_look_after(custody, settings.sweep_every_s)))
    identity = ServiceIdentity(
        embedder=network.manifest.name,
        detector=await asyncio.to_thread(_detector_name, settings.detector_path),
        space_id=network.space_id,
        dimension=network.dimension,
    )
    return Container(
        settings=settings,
        identity=identity,
        access=access,
        enrolment=EnrolmentService(
            reader,
            gallery,
            journal,
            curve,
            target_fpir=settings.target_fpir,
            quality_gate=settings.quality_gate,
        ),
        identification=IdentificationService(
            reader, gallery, curve, target_fpir=settings.target_fpir, quality_gate=settings.quality_gate
        ),
        custody=custody,
        gallery=gallery,
        journal=journal,
    )


def _open_gallery(settings: Settings, network: OnnxNetwork) -> tuple[Gallery, Journal]:
    if settings.milvus_uri is None:
        embedded = EmbeddedGallery.open(
            settings.data_dir,
            space_id=network.space_id,
            dimension=network.dimension,
            max_pending=settings.max_pending_writes,
            exact_up_to=settings.gallery_exact_up_to,
            matrix=settings.gallery_matrix,
            on_recall=GALLERY_RECALL.set,
            progress=_ProgressLog(),
        )
        return embedded, embedded.journal(kept_days=settings.journal_days)
    try:
        from service.gallery.milvus.gallery import MilvusGallery  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise StorageUnusable(f"a gallery in Milvus needs: pip install 'shrinkface[milvus]' ({error})") from error
    in_milvus = MilvusGallery.open(
        settings.milvus_uri,
        token=settings.milvus_token.get_secret_value(),
        prefix=settings.milvus_prefix,
        space_id=network.space_id,
        dimension=network.dimension,
        timeout_s=settings.milvus_timeout_s,
        max_pending=settings.max_pending_writes,
    )
    return in_milvus, LogJournal()


async def _look_after(custody: CustodyService, every_s: float) -> None:
    """Erase what has expired and prune the journal, for as long as the service runs."""
    loop = asyncio.get_running_loop()
    prune_at = loop.time()
    # Until the task is cancelled.
    while True:
        try:
            while await custody.erase_expired():
                await asyncio.sleep(0)
            if loop.time() >= prune_at:
                prune_at = loop.time() + _PRUNE_EVERY_S
                await custody.prune_journal()
        except DomainError as error:
            # A full disk, or a Milvus that is away: the next round may fare better. Searches see nothing expired.
            structlog.get_logger().warning("expired faces are still to be erased", problem=error.code)
        await asyncio.sleep(every_s)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _access(settings: Settings) -> Access:
    rate, burst_s = settings.rate_limit_per_s, settings.rate_limit_burst_s
    limiter: RateLimiter
    if rate is None:
        limiter = NullLimiter()
    elif settings.redis_url is None:
        limiter = LocalLimiter(rate_per_s=rate, burst_s=burst_s)
    else:
        limiter = RedisLimiter(
            str(settings.redis_url), rate_per_s=rate, burst_s=burst_s, timeout_s=settings.redis_timeout_s
        )
    return Access(required=settings.auth_required, keys=KeyFile(settings.keys_path), limiter=limiter)


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
