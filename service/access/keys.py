"""API keys: what they allow, and the file that knows them by their hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.access.files import changing, read_bounded, replace_file
from service.domain import (
    GALLERY_NAME,
    Forbidden,
    InvalidRequest,
    StorageUnusable,
    Unauthenticated,
    check_gallery_name,
)

MAX_FILE_BYTES = 4_000_000
MAX_KEYS = 10_000
MAX_GALLERIES = 1_000
MAX_LABEL = 100
LOOK_EVERY_S = 1.0

_TOKEN = re.compile(r"sf_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32
_REFUSAL = "the API key is not valid"
# No secret has this hash; it is compared with where the id is unknown, so that the answer takes as long.
_NOBODYS_HASH = "0" * 64
_EMPTY = b'{"format": 1, "keys": []}'

_log = structlog.get_logger()


class Scope(StrEnum):
    """What a key may do; each scope includes those before it."""

    IDENTIFY = "identify"
    ENROLL = "enroll"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether whoever has this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        key_id: public; may be logged.
        galleries: that it is confined to; None is all of them, also those yet to come.
        label: what its maker calls it; may be a person's name, so it is not for logs.
        expires_at: from then on it opens nothing; None is never.
    """

    key_id: str
    scope: Scope
    galleries: tuple[str, ...] | None
    label: str
    created_at: datetime
    expires_at: datetime | None = None

    def admits(self, gallery: str) -> bool:
        """Whether the key is for this gallery, whatever its scope."""
        return self.galleries is None or gallery in self.galleries

    def allows(self, scope: Scope, gallery: str | None = None) -> None:
        """Return if the key may do what needs this scope, in this gallery; None is a call that touches no gallery.

        Raises:
            Forbidden: it may not.
        """
        if not self.scope.includes(scope):
            raise Forbidden(f"this call needs an API key of scope {scope}", needed_scope=scope.value)
        if gallery is not None and not self.admits(gallery):
            raise Forbidden(f"this API key is not for the gallery {gallery}", gallery=gallery)


_Galleries = Annotated[tuple[Annotated[str, Field(pattern=GALLERY_NAME.pattern)], ...], Field(max_length=MAX_GALLERIES)]


class _Record(BaseModel):
    """A key as the file has it. A member that is not known is an error: it may be a restriction of a newer release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scope: Scope
    galleries: _Galleries | None
    label: str = Field(default="", max_length=MAX_LABEL)
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None

    def key(self) -> ApiKey:
        return ApiKey(self.id, self.scope, self.galleries, self.label, self.created_at, self.expires_at)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    keys: tuple[_Record, ...] = Field(max_length=MAX_KEYS)


class KeyFile:
    """API keys in a JSON file, which may be a mounted secret or lie in the data folder.

    A token is `sf_<id>_<secret>`. Of the secret the file has the SHA-256 alone. A slow hash is for passwords, which can
    be guessed; nobody can try 2^256 random secrets however fast the hash, and a slow one would cost every request.

    The file is looked at again at most once a second, when a key is asked for, so a key that was revoked, here or by
    another process, stops working about a second later. Without a file there are no keys, and nobody gets in. A file
    that is damaged or cannot be read changes nothing: the keys read last stay, or none if it never could be read.

    Args:
        path: the file; it need not exist.
        now: time of day, for expiry.
        clock: seconds that only grow, for when to look again.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._now = now
        self._clock = clock
        self._looking = threading.Lock()
        self._next_look = clock()
        self._records: Mapping[str, _Record] = {}
        self._content: bytes | None = None
        self._trouble = ""
        self.refresh()

    def create(
        self,
        scope: Scope,
        *,
        galleries: Sequence[str] | None = None,
        label: str = "",
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key. Blocks until it is on disk.

        Args:
            scope: what it may do.
            galleries: that it is confined to; None is all.
            label: up to 100 printable characters.
            expires_at: with a time zone.

        Returns:
            The key and its token, which is not kept and cannot be had again.

        Raises:
            InvalidRequest: a value is not acceptable, or the file holds as much as it may.
            StorageUnusable, StorageFull: the file is damaged, or cannot be read or written.
        """
        if galleries is not None:
            galleries = sorted({check_gallery_name(gallery) for gallery in galleries})
            if not 1 <= len(galleries) <= MAX_GALLERIES:
                raise InvalidRequest(f"a key is for 1 to {MAX_GALLERIES} galleries, or for all", field="galleries")
        if len(label) > MAX_LABEL or not label.isprintable():
            raise InvalidRequest(f"a label is up to {MAX_LABEL} printable characters", field="label")
        now = self._now()
        if expires_at is not None and expires_at.tzinfo is None:
            raise InvalidRequest("the expiry needs a time zone", field="expires_at")
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest("the expiry is in the past", field="expires_at")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        record = _Record(
            id=secrets.token_hex(4),
            sha256=_hash(secret),
            scope=scope,
            galleries=None if galleries is None else tuple(galleries),
            label=label,
            created_at=now,
            expires_at=expires_at,
        )
        with changing(self._path) as target:
            records = dict(_parse(_read(target)))
            while record.id in records:
                record = record.model_copy(update={"id": secrets.token_hex(4)})
            records[record.id] = record
            self._write(target, records)
        return record.key(), f"sf_{record.id}_{secret}"

    def list(self) -> tuple[ApiKey, ...]:
        """Every key in the file as it is now, the oldest first; also those that have expired.

        Raises:
            StorageUnusable: the file is damaged or cannot be read.
        """
        keys = [record.key() for record in _parse(_read(self._path)).values()]
        return tuple(sorted(keys, key=lambda key: (key.created_at, key.key_id)))

    def revoke(self, key_id: str) -> bool:
        """Take a key out of the file. Blocks until that is on disk.

        Returns:
            Whether there was one.

        Raises:
            StorageUnusable, StorageFull: the file is damaged, or cannot be read or written.
        """
        with changing(self._path) as target:
            records = dict(_parse(_read(target)))
            if records.pop(key_id, None) is None:
                return False
            self._write(target, records)
        return True

    def authenticate(self, token: str) -> ApiKey:
        """The key that a token is for. Reads the file when it is time to.

        Raises:
            Unauthenticated: the token is malformed, unknown, wrong or expired; the message does not say which.
        """
        self.refresh()
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise Unauthenticated(_REFUSAL)
        key_id, secret = parts.groups()
        record = self._records.get(key_id)
        right = hmac.compare_digest(_hash(secret), record.sha256 if record is not None else _NOBODYS_HASH)
        if record is None or not right or (record.expires_at is not None and record.expires_at <= self._now()):
            raise Unauthenticated(_REFUSAL)
        return record.key()

    @property
    def due(self) -> bool:
        """Whether it is time to look at the file again, which can take as long as its disk does."""
        return self._clock() >= self._next_look

    def refresh(self) -> None:
        """Look at the file if that is due. From any thread; others go on with the keys read last meanwhile."""
        if not self.due:
            return
        with self._looking:
            if self.due:
                self._next_look = self._clock() + LOOK_EVERY_S
                self._look()

    def _look(self) -> None:
        try:
            content = _read(self._path)
        except StorageUnusable as error:
            self._content = None
            self._complain(error)
            return
        # Compared as a whole: time and size can be the same after two changes in one tick of the file system.
        if content == self._content:
            return
        news = self._content is not None or self._trouble
        self._content = content
        try:
            self._records = _parse(content)
        except StorageUnusable as error:
            self._complain(error)
            return
        self._trouble = ""
        if news:
            _log.info("api keys have changed", keys=len(self._records))

    def _complain(self, error: StorageUnusable) -> None:
        # Once, not at every look.
        if error.message != self._trouble:
            self._trouble = error.message
            _log.error("api keys not read", reason=error.message, keys_kept=len(self._records))

    def _write(self, target: Path, records: Mapping[str, _Record]) -> None:
        keys = [record.model_dump(mode="json") for record in records.values()]
        content = json.dumps({"format": 1, "keys": keys}, indent=1).encode()
        if len(records) > MAX_KEYS or len(content) > MAX_FILE_BYTES:
            raise InvalidRequest("the key file is full; revoke keys that are no longer used")
        replace_file(target, content)
        with self._looking:
            self._content, self._records, self._trouble = content, records, ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(path: Path) -> bytes:
    """What the file holds; no file is one without keys. Raises StorageUnusable."""
    content = read_bounded(path, MAX_FILE_BYTES)
    return _EMPTY if content is None else content


def _parse(content: bytes) -> dict[str, _Record]:
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as error:
        # Where and what kind, never the value: a secret may have been pasted in by mistake.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:3])[:100]
        raise StorageUnusable(f"the API key file is damaged: {first['type']} at {where or 'its beginning'}") from None
    records = {record.id: record for record in document.keys}
    if len(records) < len(document.keys):
        raise StorageUnusable("the API key file is damaged: two keys have one id")
    return records
