"""Files of the data folder with bytes that nobody wrote."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.chaos.fault import GONE, Fault, Scene
from tests.chaos.load import REFUSED

_PAGE = 4096
_RUNS, _RUN_BYTES = 40, 64


class SnapshotFlipped(Fault):
    name = "snapshot-flipped"
    what = f"the service ends; {_RUNS} runs of {_RUN_BYTES} bytes of its snapshot's files are inverted; it is started"
    allowed = GONE
    shows = frozenset((REFUSED,))
    during_s = 0.0

    def begin(self, scene: Scene) -> None:
        scene.service.terminate()
        database = {"gallery.sqlite", "gallery.sqlite-wal", "gallery.sqlite-shm", "lock", "api-keys.json"}
        files = [path for path in scene.service.data_dir.rglob("*") if path.is_file() and path.name not in database]
        files = [path for path in files if path.stat().st_size > 0]
        if not files:
            raise RuntimeError("there is no snapshot to damage")
        rng = random.Random(5)
        for number in range(_RUNS):
            path = files[number % len(files)]
            invert(path, rng.randrange(path.stat().st_size), _RUN_BYTES)

    def end(self, scene: Scene) -> None:
        scene.service.start(wait=False)

    def felt(self, scene: Scene) -> bool:
        return "snapshot of a gallery is not used" in scene.service.log.read_text()


class DatabaseFlipped(Fault):
    name = "sqlite-flipped"
    what = (
        "the service is killed and every tenth page of its database inverted; it is started; a backup, made when all "
        "was acknowledged, is put back and served"
    )
    allowed = GONE | {"storage-unusable"}
    shows = allowed
    during_s = 6.0

    def begin(self, scene: Scene) -> None:
        service = scene.service
        scene.load.pause_writing()
        self.backup = scene.folder / "backup"
        made = service.command("gallery", "backup", str(self.backup))
        if made.returncode != 0:
            raise RuntimeError(f"the backup failed: {made.stdout}{made.stderr}")
        service.kill()
        database = service.data_dir / "gallery.sqlite"
        for page in range(3, database.stat().st_size // _PAGE, 10):
            invert(database, page * _PAGE, _PAGE)
        service.start(wait=False)

    def end(self, scene: Scene) -> None:
        service = scene.service
        service.kill()
        shutil.rmtree(service.data_dir)
        shutil.copytree(self.backup, service.data_dir)
        service.start(wait=False)
        scene.load.writing = True


def invert(path: Path, start: int, size: int) -> None:
    """Invert every bit of some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(start)
        content = file.read(size)
        file.seek(start)
        file.write(bytes(255 - byte for byte in content))


FAULTS: tuple[type[Fault], ...] = (SnapshotFlipped, DatabaseFlipped)
