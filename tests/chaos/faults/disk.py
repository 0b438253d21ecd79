"""A disk that is full, and has room again later."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.chaos.fault import Fault, NotRunnableError, Scene

_SIZE_MB = 96


class DiskFull(Fault):
    name = "disk-full"
    what = "the data folder's file system (a small tmpfs) is filled up to the last byte; later room is made"
    allowed = shows = frozenset(("storage-full",))

    def prepare(self, scene: Scene) -> None:
        folder = scene.service.data_dir
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MB}m", "tmpfs", str(folder)], capture_output=True
        )
        if mounted.returncode != 0:
            raise NotRunnableError("mounting a tmpfs is not permitted; file-limit shows the same by other means")

    def begin(self, scene: Scene) -> None:
        with _filler(scene).open("wb") as file, suppress(OSError):
            while True:
                # Unbuffered, to the last byte that fits.
                os.write(file.fileno(), bytes(4096))

    def end(self, scene: Scene) -> None:
        _filler(scene).unlink()

    def clean(self, scene: Scene) -> None:
        subprocess.run(["umount", "-l", str(scene.service.data_dir)], capture_output=True)


class FileLimit(Fault):
    name = "file-limit"
    what = "files may not grow any more (RLIMIT_FSIZE), which writes see as a quota; later they may"
    allowed = shows = frozenset(("storage-full",))

    def begin(self, scene: Scene) -> None:
        self.limits = resource.prlimit(scene.service.pid, resource.RLIMIT_FSIZE)
        # Of the log that every change is appended to.
        size = (scene.service.data_dir / "gallery.sqlite-wal").stat().st_size
        resource.prlimit(scene.service.pid, resource.RLIMIT_FSIZE, (size, self.limits[1]))

    def end(self, scene: Scene) -> None:
        resource.prlimit(scene.service.pid, resource.RLIMIT_FSIZE, self.limits)


def _filler(scene: Scene) -> Path:
    return scene.service.data_dir / "filler"


FAULTS: tuple[type[Fault], ...] = (DiskFull, FileLimit)
