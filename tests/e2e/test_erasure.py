"""After a deletion is answered, nothing of the person is in any file of the data folder, nor in Redis."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import redis

from service.demo import jpeg, load_portraits
from service.identification import crop_digest
from tests.e2e.conftest import Service
from tests.redis_fixture import RedisServer

NAME = "Grace Brewster Murray Hopper"
NOTE = "rear admiral, inventor of the linker"
GALLERY = "/v1/galleries/default"


def stretches(content: bytes, length: int = 24) -> list[bytes]:
    """Pieces long enough to be nothing else's; all crops begin alike."""
    return [content[at : at + length] for at in range(64, len(content) - length, 4 * length)]


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def in_redis(url: str) -> bytes:
    client = redis.Redis.from_url(url)
    content = b""
    for key in client.keys("*"):
        kind = client.type(key)
        assert kind in (b"string", b"set")
        content += key + (bytes(client.get(key)) if kind == b"string" else b"".join(client.smembers(key)))
    client.close()
    return content


@pytest.mark.redis
@pytest.mark.parametrize("way", ["person", "gallery", "expiry"])
def test_nothing_is_left(new_service: Callable[..., Service], redis_server: RedisServer, way: str) -> None:
    service = new_service(SHRINKFACE_REDIS_URL=redis_server.url, SHRINKFACE_SWEEP_EVERY_S="0.2")
    service.start()
    with httpx.Client(base_url=service.url, timeout=30) as client:
        client.post("/v1/galleries", json={"name": "default", "keep_crops": True}).raise_for_status()
        portraits = {portrait.person_id: jpeg(portrait.pixels) for portrait in load_portraits()}
        expires = {"expires_at": "2190-01-01T00:00:00Z"}
        if way == "expiry":
            soon = time.time() + 3
            expires = {"expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon + 1))}
        (first, picture), (second, other) = portraits.items()
        fields = {"person_id": first, "name": NAME, "metadata": f'{{"note": "{NOTE}"}}'}
        key = {"Idempotency-Key": "once"}
        answer = client.post("/enroll", files={"image": picture}, data=fields | expires, headers=key)
        answer.raise_for_status()
        gallery = "default" if way != "gallery" else "kept"
        client.post(
            "/enroll", files={"image": other}, data={"person_id": second, "gallery": gallery}
        ).raise_for_status()
        # The cache knows two pictures of the first face, and one of the other.
        for image in (picture, picture + b"\0", other):
            client.post("/identify", files={"image": image}).raise_for_status()
        dossier = client.get(f"{GALLERY}/persons/{first}/export").json()
        (face,) = dossier["faces"]
        embedding, crop = base64.b64decode(face["embedding"]), base64.b64decode(face["crop"])
        traces = [*stretches(embedding), *stretches(crop), NAME.encode(), NOTE.encode()]
        kept = files(service.data_dir)
        assert all(trace in kept for trace in (NAME.encode(), NOTE.encode(), stretches(embedding)[0]))
        cached = in_redis(redis_server.url)
        assert embedding in cached
        assert hashlib.sha256(picture).hexdigest().encode() in cached

        if way == "person":
            receipt = client.delete(f"{GALLERY}/persons/{first}").json()
            counted = [receipt[name] for name in ("persons", "faces", "index_entries", "crops", "cache_entries")]
            assert (counted, receipt["kept_answers"]) == ([1, 1, 1, 1, 3], 1)
        elif way == "gallery":
            receipt = client.delete(GALLERY).json()
            assert (receipt["persons"], receipt["crops"], receipt["cache_entries"]) == (1, 1, 3)
        else:
            deadline = time.monotonic() + 20
            while client.get(f"{GALLERY}/persons/{first}").status_code != 404 and time.monotonic() < deadline:
                time.sleep(0.1)
            # The log is cut right after the commit that a reader may have seen already.
            time.sleep(0.3)
        left = files(service.data_dir)
        assert [trace for trace in traces if trace in left] == []
        cached = in_redis(redis_server.url)
        assert embedding not in cached
        digest = crop_digest(cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR))
        assert [name for name in (digest.encode(), bytes.fromhex(digest)) if name in cached] == []
        assert hashlib.sha256(picture).hexdigest().encode() not in cached
        assert hashlib.sha256(other).hexdigest().encode() in cached
        # The other one is still known.
        found = client.post("/identify", files={"image": other}, data={"gallery": gallery}).json()
        assert found["faces"][0]["decision"]["person_id"] == second
    assert np.frombuffer(embedding, "<f4").shape == (128,)
    assert cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR).shape == (112, 112, 3)
