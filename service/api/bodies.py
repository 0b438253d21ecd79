"""Request bodies: pictures as multipart files or as JSON base64, under the same field names."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.api.dependencies import slot_of
from service.api.problems import BodyInvalid, BodyTooLarge, MediaTypeUnsupported, field_errors
from service.domain import Base64Invalid, InvalidRequest
from service.settings import Settings

_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 64_000
# Of a body without pictures.
_MAX_JSON_BYTES = 1_000_000

# What may be given several times in a form, a value each.
_LISTS = ("person_ids", "attributes")

FieldsT = TypeVar("FieldsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a request carried: pictures by field name, and everything else.

    Attributes:
        as_text: the fields came as text, as in multipart, where objects and lists are spelt as JSON.
    """

    pictures: Mapping[str, list[bytes]]
    fields: Mapping[str, Any]
    as_text: bool = False

    def picture(self, field: str) -> bytes:
        """The only picture of a field.

        Raises:
            InvalidRequest: there is none, or more than one.
        """
        found = self.pictures.get(field, [])
        if len(found) != 1:
            raise InvalidRequest(f"exactly one picture is needed in the field {field!r}, not {len(found)}", field=field)
        return found[0]

    def parse(self, model: type[FieldsT]) -> FieldsT:
        """The other fields, checked.

        Raises:
            InvalidRequest: a field is unknown or not acceptable.
        """
        try:
            if self.as_text:
                return model.model_validate(self.fields, context={"as_text": True})
            # JSON says of which type a value is, so that 5 is not "5".
            return model.model_validate_json(orjson.dumps(self.fields), strict=True)
        except ValidationError as error:
            raise InvalidRequest("a field is not acceptable", **field_errors(error.errors())) from None
        except orjson.JSONEncodeError:
            raise InvalidRequest("the fields are nested too deeply") from None


class _InMemoryParser(MultiPartParser):
    """Multipart parser that never spools to disk: pictures of faces stay out of temporary files.

    Fields are UTF-8, as RFC 7578 has it; a `charset` is passed over, since it would let the client choose the decoder,
    and some of those fail in ways of their own or take long.
    """

    def __init__(self, request: Request, body: bytes, max_files: int) -> None:
        async def once() -> AsyncGenerator[bytes, None]:
            yield body

        limits = {"max_files": max_files, "max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
        super().__init__(_boundary_alone(request.headers), once(), **limits)
        self.spool_max_size = len(body) + 1
        self.ended = False

    def on_end(self) -> None:
        """The closing boundary has been seen; without it the body was cut off, which the parser itself lets pass."""
        self.ended = True


def _boundary_alone(headers: Headers) -> Headers:
    """The media type without any parameter but the boundary."""
    _, parameters = parse_options_header(headers.get("content-type", ""))
    boundary = parameters.get(b"boundary")
    if boundary is None:
        return Headers(raw=[(b"content-type", b"multipart/form-data")])
    quoted = boundary.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return Headers(raw=[(b"content-type", b'multipart/form-data; boundary="' + quoted + b'"')])


async def read_submission(
    request: Request, settings: Settings, picture_fields: Sequence[str], *, max_pictures: int | None = None
) -> Submission:
    """Read a body within the limits on bytes, parts and time.

    Args:
        picture_fields: names under which pictures may come; in JSON each holds base64 text or a list of such texts.
        max_pictures: that may come; by default as many as the settings allow a request.

    Raises:
        MediaTypeUnsupported, BodyTooLarge, BodyTimeout, Overloaded, BodyInvalid, Base64Invalid, InvalidRequest.
    """
    limit = max_pictures if max_pictures is not None else settings.max_images_per_request
    media_type = parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1").lower()
    if media_type not in ("multipart/form-data", "application/json"):
        raise MediaTypeUnsupported(
            "send multipart/form-data or application/json", accepted=["multipart/form-data", "application/json"]
        )
    body = await _read_bounded(request, settings, settings.max_body_bytes)
    if not body:
        raise BodyInvalid("the body is empty")
    if media_type == "application/json":
        # Base64 of a large picture takes milliseconds to decode, too long for the event loop.
        submission = await asyncio.to_thread(_from_json, body, picture_fields)
    else:
        submission = await _from_multipart(request, body, picture_fields, limit)
    total = sum(len(pictures) for pictures in submission.pictures.values())
    if total > limit:
        raise InvalidRequest(f"the request has {total} pictures, at most {limit} are accepted", limit=limit)
    return submission


async def read_json(request: Request, settings: Settings) -> Submission:
    """Read a JSON object within the limits on bytes and time.

    Raises:
        MediaTypeUnsupported, BodyTooLarge, BodyTimeout, Overloaded, BodyInvalid.
    """
    return _from_json(await _read_json_bytes(request, settings), ())


async def read_json_list(request: Request, settings: Settings) -> list[Any]:
    """Read a JSON array; otherwise as `read_json`."""
    content = _loaded(await _read_json_bytes(request, settings))
    if not isinstance(content, list):
        raise BodyInvalid("the body must be a JSON array")
    return content


def pictures_of(content: Any, picture_fields: Sequence[str]) -> Submission:
    """Pictures in base64 and other fields of a JSON object within a body. Raises InvalidRequest, Base64Invalid."""
    if not isinstance(content, dict):
        raise InvalidRequest("an item must be a JSON object")
    return _separated(content, picture_fields)


async def _read_json_bytes(request: Request, settings: Settings) -> bytes:
    media_type = parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1").lower()
    if media_type != "application/json":
        raise MediaTypeUnsupported("send application/json", accepted=["application/json"])
    body = await _read_bounded(request, settings, min(settings.max_body_bytes, _MAX_JSON_BYTES))
    if not body:
        raise BodyInvalid("the body is empty")
    return body


async def _read_bounded(request: Request, settings: Settings, limit: int) -> bytes:
    too_large = BodyTooLarge(f"the body may have at most {limit} bytes", limit_bytes=limit)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body, slot = bytearray(), slot_of(request)
    async with slot.arriving(settings.body_timeout_s):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
            slot.hold(len(body))
    return bytes(body)


def _from_json(body: bytes, picture_fields: Sequence[str]) -> Submission:
    content = _loaded(body)
    if not isinstance(content, dict):
        raise BodyInvalid("the body must be a JSON object")
    return _separated(content, picture_fields)


def _loaded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyInvalid(f"the body is not valid JSON: {error}") from None


def _separated(content: dict[str, Any], picture_fields: Sequence[str]) -> Submission:
    content, pictures = dict(content), {}
    for field in picture_fields:
        if field in content:
            value = content.pop(field)
            texts = value if isinstance(value, list) else [value]
            if not texts:
                raise InvalidRequest(f"{field} is empty", field=field)
            pictures[field] = [_decode_base64(text, field) for text in texts]
    return Submission(pictures, content)


def _decode_base64(text: object, field: str) -> bytes:
    if not isinstance(text, str):
        raise Base64Invalid(f"{field} must be base64 text", field=field)
    # Browsers hand pictures out as data URLs; the media type in them is not trusted, the content decides.
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise Base64Invalid(f"{field} is not valid base64", field=field) from None


async def _from_multipart(request: Request, body: bytes, picture_fields: Sequence[str], max_files: int) -> Submission:
    try:
        parser = _InMemoryParser(request, body, max_files)
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        raise BodyInvalid(f"the multipart body cannot be read: {getattr(error, 'message', error)}") from None
    pictures: dict[str, list[bytes]] = {}
    fields: dict[str, Any] = {}
    try:
        if not parser.ended:
            raise BodyInvalid("the multipart body ends before its closing boundary")
        for name, value in form.multi_items():
            if name in picture_fields:
                if not isinstance(value, UploadFile):
                    raise InvalidRequest(f"{name} must be sent as a file", field=name)
                pictures.setdefault(name, []).append(await value.read())
            elif isinstance(value, UploadFile):
                raise InvalidRequest(f"no file is expected in the field {name!r}", field=name)
            elif name in fields and name in _LISTS:
                known = fields[name]
                fields[name] = [*(known if isinstance(known, list) else [known]), value]
            elif name in fields:
                raise InvalidRequest(f"the field {name!r} is given twice", field=name)
            else:
                fields[name] = value
    finally:
        await form.close()
    return Submission(pictures, fields, as_text=True)


def request_body(
    model: type[BaseModel], pictures: Mapping[str, str], required: Sequence[str], *, files_only: bool = False
) -> dict[str, Any]:
    """OpenAPI `requestBody` for both media types.

    Args:
        model: the other fields.
        pictures: picture field to `one` or `many`.
        required: picture fields that must be there.
        files_only: pictures come as files; in JSON they are elsewhere.
    """
    schema = model.model_json_schema()
    conditions = {key: schema[key] for key in ("anyOf", "oneOf", "not") if key in schema}

    def body(picture: dict[str, Any], fields: dict[str, Any], pictures: Mapping[str, str] = pictures) -> dict[str, Any]:
        properties = {
            name: picture if count == "one" else {"type": "array", "items": picture, "minItems": 1, "maxItems": 256}
            for name, count in pictures.items()
        }
        return {
            "type": "object",
            "properties": {**properties, **fields},
            "required": [*required, *schema.get("required", [])],
            "additionalProperties": False,
        }

    fields = schema.get("properties", {})
    multipart = body({"type": "string", "format": "binary"}, {name: _as_text(each) for name, each in fields.items()})
    text = {"type": "string", "format": "byte", "contentEncoding": "base64"}
    json = body(text, fields, {} if files_only else pictures)
    return {
        "requestBody": {
            "required": True,
            # Tools that send files cannot check conditions over them.
            "content": {
                "multipart/form-data": {"schema": multipart},
                "application/json": {"schema": json | conditions},
            },
        }
    }


def _as_text(field: dict[str, Any]) -> dict[str, Any]:
    """Schema of a field in multipart, where there is no null: what is left out is."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    if "default" in field and field["default"] is not None:
        rest["default"] = field["default"]
    if not kinds:
        return rest
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI `requestBody` of a JSON object without pictures."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
