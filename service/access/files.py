"""A small file that several processes change: read whole, changed one at a time, replaced in one step."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.domain import StorageFull, StorageUnusable

_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.01


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """What a file holds; None when there is none.

    Raises:
        StorageUnusable: it cannot be read, or holds more than that many bytes.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnusable(f"the file {path} cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise StorageUnusable(f"the file {path} is larger than {max_bytes} bytes")
    return content


@contextmanager
def changing(path: Path) -> Iterator[Path]:
    """Hold off every other process and thread that would change a file.

    Yields:
        Where the file really is, behind symbolic links: what replaces it must not replace a link. Its folder exists.

    Raises:
        StorageUnusable: the folder cannot be written to, or another change does not come to its end.
        StorageFull: the disk took no more.
    """
    try:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file of its own, which stays: a lock on the file itself would be on what is replaced.
        lock = os.open(target.with_name(f"{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _as_domain_error(error, path) from error
    try:
        _give_to_owner(lock, target.parent)
        _wait_for(lock, target)
        yield target
    finally:
        os.close(lock)


def replace_file(target: Path, content: bytes) -> None:
    """Make this the file's content, readable by its owner alone; on disk on return. Call it within `changing`.

    Raises:
        StorageUnusable, StorageFull: it could not be written.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        # Left by a process that was killed.
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                _give_to_owner(stream.fileno(), target.parent)
                os.fsync(stream.fileno())
            partial.rename(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise _as_domain_error(error, target) from error


def _wait_for(lock: int, target: Path) -> None:
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise StorageUnusable(
                    f"another process has been changing {target} for {_LOCK_WAIT_S:.0f} s; nothing was changed"
                ) from error
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Let the folder's owner have the file, where root makes it for a service that does not run as root."""
    if os.geteuid() == 0:
        owner = folder.stat()
        with suppress(OSError):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_domain_error(error: OSError, path: Path) -> StorageFull | StorageUnusable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"there is no room on the disk for {path}")
    return StorageUnusable(f"the file {path} cannot be changed: {error.strerror}")
