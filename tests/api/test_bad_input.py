"""Each kind of bad input has its own problem type and status, and leaves nothing behind."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from structlog.testing import capture_logs

from tests.api.conftest import photo


def _encoded(picture: Image.Image, format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_name, **options)
    return stream.getvalue()


def _person(person: int = 1) -> Image.Image:
    return Image.open(io.BytesIO(photo(person))).convert("RGB")


def png_bomb(side: int) -> bytes:
    """A PNG of side x side grey pixels whose data compresses to about a hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 2)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BAD_PICTURES = {
    "empty": (b"", 400, "image-empty"),
    "truncated-jpeg": (_encoded(_person(), "JPEG")[:900], 422, "image-damaged"),
    "text-named-jpg": (b"this is no picture at all, only text", 415, "image-format-unsupported"),
    "one-pixel": (_encoded(Image.new("RGB", (1, 1)), "PNG"), 422, "image-too-small"),
    "png-bomb": (png_bomb(30_000), 413, "image-too-many-pixels"),
    "animated-webp": (
        _encoded(_person(), "WEBP", save_all=True, append_images=[_person(2)], duration=50),
        422,
        "image-animated",
    ),
    "nobody": (photo(), 422, "no-face"),
    "two-people": (photo(1, 2), 422, "several-faces"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused_and_nothing_is_stored(client: TestClient, name: str) -> None:
    picture, status, code = BAD_PICTURES[name]
    started = time.perf_counter()
    response = client.post("/enroll", files={"image": ("a.jpg", picture)}, data={"person_id": "x"})
    assert (response.status_code, response.json()["type"]) == (status, f"urn:shrinkface:problem:{code}")
    assert response.headers["content-type"] == "application/problem+json"
    assert time.perf_counter() - started < 2
    assert client.get("/v1/galleries").json() == {"galleries": []}


def test_one_bad_picture_of_several_stores_none(client: TestClient) -> None:
    response = client.post("/enroll", files=[("images", photo(1)), ("images", photo())], data={"person_id": "x"})
    assert (response.status_code, response.json()["picture"]) == (422, 1)
    assert client.get("/v1/galleries").json() == {"galleries": []}


ODD_PICTURES = {
    "cmyk-jpeg": _encoded(_person().convert("CMYK"), "JPEG", quality=95),
    "alpha-png": _encoded(_person().convert("RGBA"), "PNG"),
    "bmp": _encoded(_person(), "BMP"),
    "webp": _encoded(_person(), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_an_odd_but_good_picture_is_taken(client: TestClient, name: str) -> None:
    response = client.post("/enroll", files={"image": ODD_PICTURES[name]}, data={"person_id": "x"})
    assert response.status_code == 201, response.text
    found = client.post("/identify", files={"image": photo(1)}).json()
    assert found["faces"][0]["decision"]["person_id"] == "x"


def test_a_sixteen_bit_png_is_taken(client: TestClient) -> None:
    grey = np.asarray(_person().convert("L"), dtype=np.uint16) * 257
    picture = _encoded(Image.fromarray(grey), "PNG")
    assert client.post("/enroll", files={"image": picture}).status_code == 201


@pytest.mark.parametrize("text", ["not base64!!", "YWJj*", "data:image/png;base64,%%%"])
def test_wrong_base64(client: TestClient, text: str) -> None:
    response = client.post("/identify", json={"image": text})
    assert (response.status_code, response.json()["type"]) == (400, "urn:shrinkface:problem:base64-invalid")


BAD_BODIES = {
    "no-body": ({"headers": {"content-type": "application/json"}}, 400, "body-invalid"),
    "no-media-type": ({"content": b"x"}, 415, "media-type-unsupported"),
    "not-json": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "body-invalid"),
    "json-list": ({"json": [1]}, 400, "body-invalid"),
    "no-image": ({"json": {"top_k": 3}}, 422, "invalid-request"),
    "no-boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "body-invalid"),
    "broken-multipart": (
        {"content": b"--b\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "body-invalid",
    ),
    "unknown-field": ({"files": {"image": photo(1)}, "data": {"topk": "3"}}, 422, "invalid-request"),
    "top_k-of-zero": ({"files": {"image": photo(1)}, "data": {"top_k": "0"}}, 422, "invalid-request"),
    "fpir-and-threshold": (
        {"files": {"image": photo(1)}, "data": {"fpir": "0.1", "threshold": "0.3"}},
        422,
        "invalid-request",
    ),
    "gallery-with-slash": ({"files": {"image": photo(1)}, "data": {"gallery": "a/b"}}, 422, "invalid-request"),
    "two-images": ({"files": [("image", photo(1)), ("image", photo(2))]}, 422, "invalid-request"),
    "too-large": ({"files": {"image": b"\xff\xd8\xff" + bytes(3_000_001)}}, 413, "body-too-large"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_has_its_own_problem(client: TestClient, name: str) -> None:
    call, status, code = BAD_BODIES[name]
    response = client.post("/identify", **call)
    assert (response.status_code, response.json()["type"]) == (status, f"urn:shrinkface:problem:{code}")
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("person_id", ["", "a/b", "x" * 129, "-dash", "naïve"])
def test_a_bad_person_id_is_refused(client: TestClient, person_id: str) -> None:
    body = {"image": base64.b64encode(photo(1)).decode(), "person_id": person_id}
    response = client.post("/enroll", json=body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "person_id")


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    assert client.get("/nothing/here").json()["type"].endswith(":not-found")
    assert client.put("/identify").json()["type"].endswith(":method-not-allowed")
    assert client.get("/v1/galleries/absent").json()["type"].endswith(":gallery-not-found")


def test_a_failure_inside_is_a_problem_without_its_cause(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret cause")

    monkeypatch.setattr("service.identification.IdentificationService.detect", broken)
    with capture_logs() as logs:
        response = client.post("/v1/detect", files={"image": photo(1)})
    assert (response.status_code, response.json()["type"]) == (500, "urn:shrinkface:problem:internal-error")
    assert "secret" not in response.text
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["request failed"]


@pytest.mark.parametrize("query", [b"name=\xa0", b"name=%a0", b"name=\xc3\xa9", b"metadata.k\xff=\xfe"])
@pytest.mark.parametrize("path", ["/v1/galleries/default/persons", "/v1/galleries/default/persons/", "/enroll"])
def test_bytes_that_no_url_may_have_are_no_failure(client: TestClient, path: str, query: bytes) -> None:
    """Servers hand the query on as it came; so does this client's transport, and the test."""
    client.post("/enroll", files={"image": photo(1)}, data={"person_id": "x", "name": "é"})
    sent = []
    app = client.app

    async def with_query(scope: dict, receive: object, send: object) -> None:
        sent.append(query)
        await app({**scope, "query_string": query}, receive, send)

    client._transport.app = with_query
    method = "POST" if path == "/enroll" else "GET"
    answer = client.request(method, path, headers={"idempotency-key": "k"}, follow_redirects=False)
    assert sent == [query]
    assert answer.status_code in (200, 307, 415)
    if query == b"name=\xc3\xa9" and answer.status_code == 200:
        assert [person["person_id"] for person in answer.json()["persons"]] == ["x"]


@pytest.mark.parametrize("charset", ["utf-8", "punycode", "idna", "hex", "zip", "utf-16", "undefined", "mbcs"])
def test_fields_of_multipart_are_utf_8_whatever_the_header_says(client: TestClient, charset: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n%s\r\n'
    picture = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + photo(1) + b"\r\n--b--\r\n"
    header = f"multipart/form-data; charset={charset}; boundary=b"
    answer = client.post("/enroll", content=part % "Zoë".encode() + picture, headers={"content-type": header})
    assert (answer.status_code, answer.json()["person"]["name"]) == (201, "Zoë")


@pytest.mark.parametrize("boundary", ['"b"', '"a b"', '"a\\\\b"', "b'(c)+_,-./:=?", "b" * 70])
def test_boundaries_of_any_kind_are_understood(client: TestClient, boundary: str) -> None:
    plain = boundary.strip('"').replace("\\\\", "\\").encode()
    part = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%s\r\n--%s--\r\n'
    answer = client.post(
        "/enroll",
        content=part % (plain, photo(1), plain),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    assert answer.status_code == 201, answer.text
