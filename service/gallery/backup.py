"""A consistent copy of a data folder, made while a service goes on using it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from service.domain import InvalidRequest, StorageUnusable
from service.gallery.folder import sync_folder
from service.gallery.schema import BUSY_TIMEOUT_MS, DATABASE_FILE, as_domain_error


def back_up(folder: Path, target: Path) -> int:
    """Copy a data folder as it is at one moment into a new folder that can be served.

    The copy is written afresh, row by row, so that it holds nothing of what was erased before.

    Args:
        folder: a data folder; a service may be writing to it.
        target: made; it must not exist, or be empty.

    Returns:
        Size of the copy, bytes. It is on disk by then.

    Raises:
        InvalidRequest: the target holds something.
        StorageUnusable: the folder holds no gallery, or a file cannot be read or written.
        StorageFull: the disk took no more; the target is left without a database.
    """
    if not (folder / DATABASE_FILE).is_file():
        raise StorageUnusable(f"{folder} holds no gallery", folder=str(folder))
    partial, copy = target / f"{DATABASE_FILE}.partial", target / DATABASE_FILE
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What an interrupted backup left may be replaced.
        if any(entry != partial for entry in target.iterdir()):
            raise InvalidRequest(f"{target} is not empty; a backup goes into a folder of its own", field="target")
        partial.unlink(missing_ok=True)
        # Faces are nobody else's business on a shared machine.
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            _copy(folder / DATABASE_FILE, partial)
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        partial.rename(copy)
        sync_folder(target)
        return copy.stat().st_size
    except OSError as error:
        raise StorageUnusable(f"the backup cannot be written: {error.strerror}", folder=str(target)) from error


def _copy(source: Path, target: Path) -> None:
    uri = source.resolve().as_uri() + "?mode=ro"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA temp_store = MEMORY")
            # One read transaction from beginning to end; a writer is not held up by it.
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise as_domain_error(error) from error
