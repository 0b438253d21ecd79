"""The only wiring: settings in, a running service out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from service import bundled
from service.access import Access, KeyFile, LocalLimiter, NullLimiter, RateLimiter, RedisLimiter
from service.cache import NullCache, RedisCache
from service.calibration import ImpostorCurve
from service.contract import ContractError, read_manifest, sha256_of_file
from service.domain import DomainError, ServiceIdentity, SpaceMismatch, StorageUnusable
from service.gallery.active import Place, place_of, read_places
from service.gallery.embedded import EmbeddedGallery
from service.identification import CustodyService, EnrolmentService, FaceReader, IdentificationService
from service.journal import LogJournal
from service.migration import Gate, GuardedGallery, LinkedCache, Migration, ServedJournal, Side
from service.ports import EmbeddingCache, Gallery, Journal, PictureAnalyser
from service.settings import Settings
from service.telemetry import ATTRIBUTE_BATCH_SIZE, BATCH_SIZE, GALLERY_RECALL
from service.vision.analysis import ThreadedAnalyser
from service.vision.attributes.reader import BatchedAttributes, load_networks
from service.vision.embedding import BatchedEmbedder, OnnxNetwork
from service.vision.imaging import ImageLimits
from service.vision.quality import QualityGate
from service.vision.second_look import open_detector

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
    migration: Migration[Container] | None = None


async def build(settings: Settings, stack: AsyncExitStack) -> Container:
    """Open models, gallery and cache; `stack` closes them in reverse.

    Raises:
        ContractError: a model file is missing, damaged or of the wrong kind.
        SpaceMismatch, FolderInUse, StorageUnusable: the data folder cannot be served.
        GalleryUnavailable: Milvus does not answer.
    """
    detector = await asyncio.to_thread(
        open_detector,
        settings.detector_path,
        score_threshold=settings.detection_threshold,
        max_side_px=settings.detection_max_side_px,
    )
    detector_name = await asyncio.to_thread(_detector_name, settings.detector_path)
    access = await asyncio.to_thread(_access, settings)
    stack.push_async_callback(access.close)
    analyser = ThreadedAnalyser(
        detector,
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.min_image_side_px),
        gate=QualityGate(min_detection_score=settings.detection_threshold),
        search_side_px=settings.detection_max_side_px,
        workers=settings.vision_workers,
        max_pending=settings.vision_max_pending,
        deadline_s=settings.queue_deadline_s,
    )
    stack.push_async_callback(analyser.close)
    networks = await asyncio.to_thread(
        load_networks, _mask_path(settings), settings.attribute_models, settings.providers
    )
    attributes = BatchedAttributes(
        networks,
        max_pending=settings.embed_max_pending,
        deadline_s=settings.queue_deadline_s,
        on_batch=lambda network, size: ATTRIBUTE_BATCH_SIZE.labels(network).observe(size),
    )
    stack.push_async_callback(attributes.close)
    shared = _Shared(settings, access, analyser, detector_name, attributes)
    try:
        container = await (_on_folder(shared, stack) if settings.milvus_uri is None else _on_milvus(shared, stack))
    except SpaceMismatch as error:
        advised = await asyncio.to_thread(_advised, error)
        if advised is None:
            raise
        raise advised from error
    served = _Served(container)
    if container.migration is not None:
        container.migration.on_switch(served.adopt)
    stack.push_async_callback(_ended, asyncio.create_task(_look_after(served, settings.sweep_every_s)))
    return container


@dataclass(frozen=True, slots=True)
class _Shared:
    """What serves, whichever model does."""

    settings: Settings
    access: Access
    analyser: PictureAnalyser
    detector_name: str
    attributes: BatchedAttributes


class _Served:
    """What is served at the moment."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def adopt(self, container: Container) -> None:
        self.container = container


def _advised(error: SpaceMismatch) -> SpaceMismatch | None:
    """The refusal of a gallery, saying which of the networks that come along would do, if one would."""
    name = bundled.name_of_space(str(error.details.get("stored_space_id")))
    if name is None:
        return None
    return SpaceMismatch(f"{error.message} SHRINKFACE_EMBEDDER_PATH={name} serves it as it is.", **error.details)


async def _on_folder(shared: _Shared, stack: AsyncExitStack) -> Container:
    """The embedded gallery, by the model that the data folder was last switched to."""
    settings = shared.settings
    places = await asyncio.to_thread(read_places, settings.data_dir, settings.embedder_path)
    if places.active.embedder != settings.embedder_path.absolute():
        structlog.get_logger().warning(
            "the data folder was switched to another model than the settings name, and that one is served",
            served=str(places.active.embedder),
            settings=str(settings.embedder_path),
        )
    gate = Gate()

    async def open_side(place: Place) -> Side[Container]:
        return await _side(settings, place, gate)

    active = await open_side(places.active)
    # Opened before what uses it and so closed after: an enrolment in flight can still be stored.
    async with AsyncExitStack() as undo:
        undo.push_async_callback(active.stack.aclose)
        beside = places.previous or places.pending
        other = await open_side(beside) if beside is not None else None
        undo.pop_all()
    journal = ServedJournal(active.journal, gate)

    async def serve(side: Side[Container]) -> Container:
        return await _container(
            shared, side.place.embedder, side.guard, journal, side.cache, side.stack, migration=migration
        )

    migration: Migration[Container] = Migration(
        settings.data_dir,
        places,
        active,
        other,
        gate=gate,
        journal=journal,
        open_side=open_side,
        serve=serve,
        grace_s=settings.queue_deadline_s,
    )
    stack.push_async_callback(migration.close)
    active.container = await serve(active)
    return active.container


async def _side(settings: Settings, place: Place, gate: Gate) -> Side[Container]:
    gallery = await asyncio.to_thread(
        EmbeddedGallery.open,
        settings.data_dir / place.folder,
        space_id=place.space_id,
        dimension=place.dimension,
        max_pending=settings.max_pending_writes,
        exact_up_to=settings.gallery_exact_up_to,
        matrix=settings.gallery_matrix,
        on_recall=GALLERY_RECALL.set,
        progress=_ProgressLog(),
    )
    cache = LinkedCache(_cache(settings, place.space_id, place.dimension))
    stack = AsyncExitStack()
    stack.push_async_callback(gallery.close)
    stack.push_async_callback(cache.close)
    journal = gallery.journal(kept_days=settings.journal_days)
    return Side(place, gallery, GuardedGallery(gallery, gate), journal, cache, stack)


async def _on_milvus(shared: _Shared, stack: AsyncExitStack) -> Container:
    settings = shared.settings
    place = await asyncio.to_thread(place_of, settings.embedder_path)
    gallery = await asyncio.to_thread(_open_milvus, settings, place)
    stack.push_async_callback(gallery.close)
    cache = _cache(settings, place.space_id, place.dimension)
    stack.push_async_callback(cache.close)
    return await _container(shared, settings.embedder_path, gallery, LogJournal(), cache, stack, migration=None)


def _open_milvus(settings: Settings, place: Place) -> Gallery:
    try:
        from service.gallery.milvus.gallery import MilvusGallery  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise StorageUnusable(f"a gallery in Milvus needs: pip install 'shrinkface[milvus]' ({error})") from error
    assert settings.milvus_uri is not None
    return MilvusGallery.open(
        settings.milvus_uri,
        token=settings.milvus_token.get_secret_value(),
        prefix=settings.milvus_prefix,
        space_id=place.space_id,
        dimension=place.dimension,
        timeout_s=settings.milvus_timeout_s,
        max_pending=settings.max_pending_writes,
    )


async def _container(
    shared: _Shared,
    embedder_path: Path,
    gallery: Gallery,
    journal: Journal,
    cache: EmbeddingCache,
    stack: AsyncExitStack,
    *,
    migration: Migration[Container] | None,
) -> Container:
    """What serves one model's gallery; `stack` closes what this opens."""
    settings = shared.settings
    network = await asyncio.to_thread(
        OnnxNetwork, embedder_path, threads=settings.embed_threads, providers=settings.providers
    )
    scores = network.manifest.impostor_scores
    if scores is None:
        raise ContractError(f"the manifest of {embedder_path} states no impostor scores; export the model again")
    workers, faces = settings.embed_runs
    embedder = BatchedEmbedder(
        network,
        max_batch=faces,
        max_pending=settings.embed_max_pending,
        deadline_s=settings.queue_deadline_s,
        workers=workers,
        on_batch=BATCH_SIZE.observe,
    )
    stack.push_async_callback(embedder.close)
    curve = ImpostorCurve.of(scores)
    reader = FaceReader(shared.analyser, embedder, cache, max_faces=settings.max_faces, attributes=shared.attributes)
    identity = ServiceIdentity(
        embedder=network.manifest.name,
        detector=shared.detector_name,
        space_id=network.space_id,
        dimension=network.dimension,
        attributes=shared.attributes.networks_of,
    )
    return Container(
        settings=settings,
        identity=identity,
        access=shared.access,
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
        custody=CustodyService(gallery, cache, journal),
        gallery=gallery,
        journal=journal,
        migration=migration,
    )


async def _look_after(served: _Served, every_s: float) -> None:
    """Erase what has expired and prune the journal, for as long as the service runs."""
    loop = asyncio.get_running_loop()
    prune_at = loop.time()
    # Until the task is cancelled.
    while True:
        try:
            custody = served.container.custody
            erased = True
            while erased:
                erased = bool(await custody.erase_expired())
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


def _cache(settings: Settings, space_id: str, dimension: int) -> EmbeddingCache:
    if settings.redis_url is None:
        return NullCache()
    return RedisCache(
        str(settings.redis_url),
        space_id=space_id,
        dimension=dimension,
        timeout_s=settings.redis_timeout_s,
        ttl_s=settings.redis_ttl_s,
    )


def _mask_path(settings: Settings) -> Path | None:
    path = settings.mask_path
    if not path.exists():
        structlog.get_logger().info("there is no mask classifier, so masks are not told of", path=str(path))
        return None
    return path


def _detector_name(path: Path) -> str:
    """The manifest's name, or the file's name and hash for a detector that came without one."""
    if path.with_suffix(".json").exists():
        return read_manifest(path).name
    return f"{path.stem}@{sha256_of_file(path)[:12]}"
