"""The data folder: made on first use, and owned by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from service.domain import FolderInUse, StorageFull, StorageUnusable

_LOCK_FILE = "lock"


class FolderLock:
    """Exclusive ownership of a data folder, from construction to `release` or the death of the process.

    An flock and not a file with a process id in it: the kernel lets go of it however the process ends.

    Raises:
        FolderInUse: another process, or another part of this one, owns the folder.
        StorageFull: the folder or its lock file found no room.
        StorageUnusable: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        try:
            # Faces are nobody else's business on a shared machine.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("there is no room on the disk for a data folder") from error
            raise StorageUnusable(f"the data folder cannot be used: {error.strerror}", folder=str(folder)) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise FolderInUse(
                f"another process serves the data folder {folder}; stop it first, or choose another folder",
                folder=str(folder),
            ) from error

    def release(self) -> None:
        """Let go of the folder; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def sync_folder(folder: Path) -> None:
    """Bring the folder's own entries to disk: a new file may survive a power cut only when its name does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
