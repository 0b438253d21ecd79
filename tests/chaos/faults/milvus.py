"""Milvus Lite, whose files are taken away under the service that has them open."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from tests.chaos.fault import GONE, Fault, NotRunnableError, Scene


class MilvusRemoved(Fault):
    name = "milvus-removed"
    what = "the files of Milvus Lite are moved away under the service; later they are put back and it is started again"
    allowed = GONE | {"gallery-unavailable", "overloaded"}
    shows = allowed
    # Longer than a call to Milvus may take, so that its failure is answered.
    during_s = 14.0
    verified = False

    def prepare(self, scene: Scene) -> None:
        if find_spec("milvus_lite") is None:
            raise NotRunnableError("milvus-lite is not installed")
        self.path = scene.folder / "milvus" / "gallery.db"
        self.path.parent.mkdir()
        self.away = scene.folder / "away"
        scene.service.environment["SHRINKFACE_MILVUS_URI"] = str(self.path)

    def begin(self, scene: Scene) -> None:
        self.path.rename(self.away)

    def end(self, scene: Scene) -> None:
        scene.service.kill()
        _remove(self.path)
        self.away.rename(self.path)
        scene.service.start(wait=False)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FAULTS: tuple[type[Fault], ...] = (MilvusRemoved,)
