"""Requests to begin fuzzing with: every call that takes a body, in each of the ways that it may come.

An input is three bytes that choose the call, the media type (and whether there is an Idempotency-Key) and the number of
pieces that the body arrives in, and then the body.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.api.conftest import photo
from tests.fuzz import pictures

CALLS = (
    ("POST", "/enroll"),
    ("POST", "/identify"),
    ("POST", "/v1/verify"),
    ("POST", "/v1/detect"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/batch/identify"),
    ("POST", "/v1/batch/enroll"),
    ("POST", "/v1/galleries/known/import"),
    ("POST", "/v1/galleries"),
    ("PATCH", "/v1/galleries/known"),
    ("POST", "/v1/galleries/known/persons"),
    ("PATCH", "/v1/galleries/known/persons/ann"),
    ("POST", "/api/v1/recognition/recognize"),
    ("POST", "/api/v1/recognition/faces?subject=ann"),
    ("POST", "/api/v1/verification/verify"),
    ("POST", "/api/v1/detection/detect"),
    ("POST", "/api/v1/recognition/subjects"),
    ("POST", "/api/v1/recognition/faces/delete"),
    ("PUT", "/api/v1/recognition/subjects/ann"),
    # The first line of the body is the rest of the target.
    ("GET", "/v1/galleries/known/"),
    ("GET", "/v1/journal"),
    ("DELETE", "/v1/galleries/known/"),
    ("DELETE", "/api/v1/recognition/"),
)
MEDIA_TYPES = (
    b"application/json",
    b"multipart/form-data; boundary=b",
    b"application/x-ndjson",
    # The first line of the body is the header's value.
    None,
)
# Of the second byte: the request comes with an Idempotency-Key.
REPEATABLE = 0x80
# The most pieces that a body arrives in.
PIECES = 5


def request(path: str, media: int, body: bytes, *, pieces: int = 1) -> bytes:
    """An input that makes this request."""
    call = next(number for number, (_, known) in enumerate(CALLS) if known == path)
    return bytes((call, media, pieces - 1)) + body


def seeds() -> dict[str, bytes]:
    """Requests to begin with."""
    return {**_json_seeds(), **_form_seeds(), **_line_seeds(), **_target_seeds()}


def tokens() -> list[bytes]:
    """What a mutation may put in."""
    names = ("image", "images", "reference", "person_id", "person_ids", "name", "metadata", "gallery", "top_k", "fpir")
    names += ("threshold", "max_faces", "expires_at", "on_existing", "items", "faces", "embedding", "space_id", "file")
    spelt = [f'"{name}":'.encode() for name in names] + [f'name="{name}"'.encode() for name in names]
    return [
        *spelt,
        *(b"--b\r\n", b"--b--\r\n", b"\r\n\r\n", b"Content-Disposition: form-data; ", b'filename="a.jpg"'),
        *(b"Content-Transfer-Encoding: base64\r\n", b"; charset=utf-7", b"filename*=utf-8''%e2%82%ac", b"boundary="),
        *(
            b"data:image/png;base64,",
            b"null",
            b"true",
            b"-1",
            b"1e308",
            b"NaN",
            b"[[[[",
            b"}}}}",
            b"\\ud800",
            b"\\u0000",
        ),
        *(b"2190-01-01T00:00:00Z", b"known", b"ann", b"persons", b"?metadata.a=", b"&cursor=", b"faces/", b"export"),
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json_seeds() -> dict[str, bytes]:
    small = _base64(pictures.seeds()["jpeg"])
    person = _base64(photo(2))
    bodies: list[tuple[str, dict[str, Any] | list[Any]]] = [
        ("/enroll", {"image": person, "person_id": "bob", "name": "Bob", "metadata": {"a": [1, {"b": None}]}}),
        ("/enroll", {"images": [small, person], "on_existing": "extend", "expires_at": "2190-01-01T00:00:00+01:00"}),
        ("/identify", {"image": f"data:image/png;base64,{person}", "top_k": 3, "fpir": 0.01, "max_faces": 2}),
        ("/identify", {"image": person, "person_ids": ["ann", "eve"], "exact": True, "threshold": 0.5}),
        ("/v1/verify", {"image": person, "reference": person, "fmr": 0.01}),
        ("/v1/verify", {"image": small, "person_id": "ann"}),
        ("/v1/detect", {"image": small, "max_faces": 1}),
        ("/v1/embeddings", {"image": person}),
        ("/v1/batch/identify", {"images": [person, small, ""], "top_k": 1}),
        ("/v1/batch/enroll", {"items": [{"image": person, "person_id": "x"}, {"image": 3}], "gallery": "known"}),
        ("/v1/galleries", {"name": "other", "target_fpir": 0.1, "quality_gate": "strict", "keep_crops": True}),
        ("/v1/galleries/known", {"target_fpir": None, "quality_gate": "off"}),
        ("/v1/galleries/known/persons", {"name": "Eve", "metadata": {"k": "v"}}),
        ("/v1/galleries/known/persons/ann", {"name": None, "metadata": {}}),
        ("/api/v1/recognition/recognize", {"file": person}),
        ("/api/v1/recognition/faces?subject=ann", {"file": person}),
        ("/api/v1/verification/verify", {"source_image": person, "target_image": small}),
        ("/api/v1/detection/detect", {"file": small}),
        ("/api/v1/recognition/subjects", {"subject": "a/b c"}),
        ("/api/v1/recognition/faces/delete", ["6f2a3d5e-3b61-5c9f-9d0e-8a4b7c1d2e3f"]),
        ("/api/v1/recognition/subjects/ann", {"subject": "anna"}),
    ]
    seeds = {f"json-{index}": request(path, 0, json.dumps(body).encode()) for index, (path, body) in enumerate(bodies)}
    deep = b'{"image": "", "metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 301
    return {
        **seeds,
        "json-deep": request("/enroll", 0, deep),
        "json-deep-repeatable": request("/enroll", REPEATABLE, deep),
        "json-repeatable": request("/enroll", REPEATABLE, json.dumps({"image": person, "name": "Bob"}).encode()),
        "json-deeper": request("/enroll", 0, b"[" * 5_000),
        "json-cut": request("/identify", 0, json.dumps({"image": person}).encode()[:-40], pieces=3),
    }


def _form_seeds() -> dict[str, bytes]:
    picture = photo(2)

    def form(*parts: tuple[bytes, bytes], end: bytes = b"--b--\r\n") -> bytes:
        return b"".join(b"--b\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end

    def field(name: bytes) -> bytes:
        return b'Content-Disposition: form-data; name="' + name + b'"'

    def file(name: bytes) -> bytes:
        return field(name) + b'; filename="a.jpg"\r\nContent-Type: image/jpeg'

    enrolment = form((file(b"image"), picture), (field(b"person_id"), b"bob"), (field(b"metadata"), b'{"a": [1]}'))
    return {
        "form-enrol": request("/enroll", 1, enrolment, pieces=4),
        "form-several": request("/enroll", 1, form((file(b"images"), picture), (file(b"images"), b""))),
        "form-identify": request("/identify", 1, form((file(b"image"), picture), (field(b"person_ids"), b"ann,eve"))),
        "form-ids": request("/identify", 1, form((file(b"image"), picture), *[(field(b"person_ids"), b"ann")] * 3)),
        "form-verify": request("/v1/verify", 1, form((file(b"image"), picture), (file(b"reference"), picture))),
        "form-batch": request(
            "/v1/batch/enroll", 1, form((file(b"images"), picture), (field(b"items"), b'[{"name": "x"}]'))
        ),
        "form-compreface": request("/api/v1/recognition/faces?subject=ann", 1, form((file(b"file"), picture))),
        "form-many": request("/identify", 1, form(*[(field(b"top_k"), b"1")] * 40)),
        "form-nameless": request("/identify", 1, form((b"Content-Disposition: form-data", b"x"))),
        "form-encoded": request("/identify", 1, form((field(b"image") + b"; filename*=utf-8''%e2%82", picture))),
        "form-cut": request("/enroll", 1, enrolment[:-9]),
        "form-boundary": request("/enroll", 3, b'multipart/form-data; boundary="b"; boundary=c\n' + enrolment),
        "form-charset": request("/enroll", 3, b"multipart/form-data; charset=utf-16; boundary=b\n" + enrolment),
        "form-longest-boundary": request(
            "/enroll", 3, b"multipart/form-data; boundary=" + b"b" * 300 + b"\n" + enrolment
        ),
        "media-type": request("/enroll", 3, b"text/plain; a=b\nx"),
    }


def _line_seeds() -> dict[str, bytes]:
    vector = [0.0] * 31 + [1.0]
    faces = [{"face_id": "f", "embedding": vector, "expires_at": "2190-01-01T00:00:00Z"}]
    lines = [
        {"person_id": "bob", "space_id": "sf1-fake", "faces": faces, "metadata": {"a": 1}, "name": "Bob"},
        {"person_id": "eve", "images": [_base64(photo(3)), "?"]},
        {"person_id": "ann", "space_id": "sf1-fake", "faces": []},
        {"person_id": "zoe", "space_id": "sf1-other", "faces": [{"face_id": "g", "embedding": "AAAA"}]},
    ]
    whole = b"\n".join(json.dumps(line).encode() for line in lines)
    path = "/v1/galleries/known/import"
    return {"lines": request(path, 2, whole, pieces=5), "lines-empty": request(path, 2, b"\n\n{}\n[]\n\xff\n")}


def _target_seeds() -> dict[str, bytes]:
    persons = (
        b"persons",
        b"persons?limit=2&cursor=x",
        b"persons?metadata.a=1&name=an",
        b"persons/ann",
        b"export?after=a",
    )
    faces = (b"persons/ann/faces", b"persons/ann/export", b"persons/ann/faces/x/crop", b"persons/%00", b"persons/a\xe9")
    seeds = {f"get-{n}": request("/v1/galleries/known/", 0, rest) for n, rest in enumerate((*persons, *faces))}
    deletions = (b"persons/ann", b"persons/ann/faces/x", b"")
    return {
        **seeds,
        **{f"delete-{n}": bytes((21, 0, 0)) + rest for n, rest in enumerate(deletions)},
        "delete-subjects": bytes((22, 0, 0)) + b"subjects/ann",
        "delete-faces": bytes((22, 0, 0)) + b"faces?subject=ann",
        "journal": request("/v1/journal", 0, b"?limit=2&gallery=known&person_id=ann&cursor=x"),
    }
