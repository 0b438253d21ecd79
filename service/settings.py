"""All settings, from the environment (`SHRINKFACE_...`) or a `.env` file. Nothing else of the service reads it.

The command line alone reads two more, for whom it speaks to: `SHRINKFACE_URL` and `SHRINKFACE_API_KEY`.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, RedisDsn, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service import bundled

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class Settings(BaseSettings):
    """Settings of one service process; every field has a default that suits one machine.

    Sizes are in bytes or pixels, times in seconds, as the names say.
    """

    model_config = SettingsConfigDict(env_prefix="SHRINKFACE_", env_file=".env", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    data_dir: Path = Field(default=Path("shrinkface-data"), description="Folder of the enrolled galleries.")
    default_gallery: str = "default"

    embedder_path: Annotated[Path, AfterValidator(bundled.located)] = Field(
        default=bundled.FOLDER / "student.onnx",
        description="ONNX network, manifest beside it; a name alone is also that of one that comes along.",
    )
    detector_path: Path = Field(
        default=bundled.FOLDER / "detector.onnx", description="The bundled detector, or the official YuNet ONNX file."
    )
    mask_path: Path = Field(
        default=bundled.FOLDER / "mask.onnx",
        description="ONNX network that tells who wears a mask, manifest beside it; without the file nothing is told.",
    )
    attribute_models: list[Path] = Field(
        default=[],
        max_length=16,
        description="ONNX networks that tell more of a face (age, gender, liveness), manifests beside them, as a JSON "
        "array of paths; see docs/attributes.md.",
    )
    providers: list[str] = Field(default=["CPUExecutionProvider"], description="onnxruntime providers, in order.")
    embed_threads: int = Field(default=1, ge=1, le=256, description="Threads of one run of the network.")
    embed_workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Runs of the network at the same time; one a core, at most four, unless set, and one on a GPU.",
    )
    embed_max_batch: int | None = Field(
        default=None, ge=1, le=1024, description="Faces of one run; 2 unless set, and 16 on a GPU."
    )
    embed_max_pending: int = Field(default=512, ge=1, description="Faces that may wait for the network.")
    vision_workers: int = Field(default=2, ge=1, le=256, description="Pictures decoded and searched at once.")
    vision_max_pending: int = Field(default=128, ge=1, description="Pictures that may wait for a worker.")
    queue_deadline_s: float = Field(default=5.0, gt=0, description="How long anything may wait in a queue.")

    detection_threshold: float = Field(default=0.7, gt=0, lt=1)
    detection_max_side_px: int = Field(
        default=640, ge=64, le=4096, description="Larger pictures are searched scaled down."
    )
    max_faces: int = Field(default=50, ge=1, le=1000, description="Faces that one picture may be answered for.")
    quality_gate: Literal["strict", "standard", "off"] = Field(
        default="standard", description="What a face must have to be enrolled, where its gallery does not say."
    )

    max_image_bytes: int = Field(default=20_000_000, ge=1)
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    min_image_side_px: int = Field(default=16, ge=1)
    max_body_bytes: int = Field(default=64_000_000, ge=1, description="Whole request body.")
    max_images_per_request: int = Field(default=16, ge=1, le=64)
    max_batch: int = Field(default=64, ge=1, le=256, description="Pictures of one batch.")
    body_timeout_s: float = Field(default=30.0, gt=0, description="How long a request body may take to arrive.")

    max_connections: int = Field(
        default=4096, ge=1, description="Open at once; beyond it those are closed that are idle for longest."
    )
    max_requests: int = Field(default=512, ge=1, description="Taken on at once; beyond it requests are refused.")
    max_bodies_bytes: int = Field(default=256_000_000, ge=1, description="Of all request bodies in memory.")
    header_timeout_s: float = Field(default=10.0, gt=0, description="How long a request's head may take to arrive.")
    settle_s: float = Field(
        default=0.0, ge=0, le=3600, description="How long to go on serving, no longer ready, when told to end."
    )
    drain_s: float = Field(
        default=20.0, ge=0, le=3600, description="How long requests in progress may then take; no others come."
    )

    target_fpir: float = Field(default=0.01, gt=0, lt=1, description="Default false-positive identification rate.")
    gallery_exact_up_to: int = Field(
        default=20_000, ge=0, description="Galleries of more faces are searched compressed first, then exactly."
    )
    gallery_matrix: Literal["float32", "float16"] = Field(
        default="float32", description="Embeddings in memory; float16 halves them, at a score error of up to 1e-4."
    )
    milvus_uri: str | None = Field(
        default=None,
        description="Keep the galleries in Milvus: a server's URL, or the path of a Milvus Lite file. Then `data_dir` "
        "is not used.",
    )
    milvus_token: SecretStr = Field(default=SecretStr(""), description="`user:password` or an API key.")
    milvus_prefix: str = Field(
        default="shrinkface", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$", description="Of the collections' names."
    )
    milvus_timeout_s: float = Field(default=10.0, gt=0, description="For each call to Milvus.")
    max_pending_writes: int = Field(default=1024, ge=1)
    sweep_every_s: float = Field(default=10.0, gt=0, description="How often expired faces are erased.")
    journal_days: int = Field(default=365, ge=1, le=36_500, description="How long the journal keeps an entry.")

    redis_url: RedisDsn | None = Field(default=None, description="Cache of pictures and embeddings; none unless set.")
    redis_timeout_s: float = Field(default=0.05, gt=0, description="After this, what is cached counts as absent.")
    redis_ttl_s: int = Field(default=3600, ge=1)

    auth: Literal["auto", "on", "off"] = Field(
        default="auto", description="Whether callers need an API key; auto: unless `host` is a loopback address."
    )
    keys_file: Path | None = Field(default=None, description="Of the API keys; `data_dir`/api-keys.json unless set.")
    rate_limit_per_s: float | None = Field(
        default=None, ge=0.001, le=1e6, description="Requests a second of one API key, or host; no limit unless set."
    )
    rate_limit_burst_s: float = Field(
        default=10.0, gt=0, le=3600, description="As many requests may come at once as the limit allows in this time."
    )

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("max_bodies_bytes must hold one body of max_body_bytes")
        return self

    @property
    def embed_runs(self) -> tuple[int, int]:
        """Runs of the network at the same time, and faces of each.

        On a CPU more faces a run are no cheaper: what lies between two layers outgrows the core's own cache. Two runs
        keep two cores busy, and small ones do not let one face wait for many.
        """
        on_cpu = self.providers == ["CPUExecutionProvider"]
        workers, faces = (min(os.cpu_count() or 1, 4), 2) if on_cpu else (1, 16)
        return self.embed_workers or workers, self.embed_max_batch or faces

    @property
    def auth_required(self) -> bool:
        """Whether callers need an API key."""
        return self.auth == "on" or (self.auth == "auto" and not _is_loopback(self.host))

    @property
    def keys_path(self) -> Path:
        """Where the API keys are."""
        return self.keys_file if self.keys_file is not None else self.data_dir / "api-keys.json"


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there; a name may resolve to anything."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _LOOPBACK)
