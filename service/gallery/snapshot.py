"""What lies on disk of a large gallery's index, so that a start need not read a million rows of the database.

A snapshot is a folder of the columns' files, called a generation, and a manifest that says how many rows of them are
on disk for certain, up to which revision of the store they go, and the codes of the sieve. Rows that the manifest does
not count are ignored. The manifest is replaced in one step and carries its own hash, every row its checksum. The store
stays the truth: whatever is wrong with a snapshot, the index is built again without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import ALIVE, Rows
from service.gallery.folder import sync_folder

INDEX_FOLDER = "index"
_MANIFEST = "snapshot.json"
_FORMAT = 1
# The codes of a sieve are some tens of kilobytes.
_MAX_MANIFEST_BYTES = 16_000_000


class SnapshotDamaged(Exception):
    """Why a snapshot cannot be used."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What a manifest says.

    Attributes:
        rows: that are on disk for certain.
        revision: of the store that they go up to.
        codes: of the sieve, (codes, 16, values) float32; None when there was none.
        trained_on: rows that the codes were fitted to.
    """

    rows: int
    revision: int
    codes: NDArray[np.float32] | None = None
    trained_on: int = 0


class SnapshotFolder:
    """Where one gallery's snapshot is kept.

    Args:
        folder: of this gallery alone.
        space_id, dimension, dtype: of the embeddings; a snapshot of others is not used.
    """

    def __init__(self, folder: Path, *, space_id: str, dimension: int, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._claims = {"format": _FORMAT, "space_id": space_id, "dimension": dimension, "dtype": dtype.name}
        self._dimension = dimension
        self._dtype = dtype

    @staticmethod
    def dtype_of(folder: Path) -> np.dtype[Any] | None:
        """Of the matrix of the snapshot in a folder; None when there is none. Raises SnapshotDamaged."""
        manifest = folder / _MANIFEST
        try:
            return np.dtype(_read_manifest(manifest)["dtype"]) if manifest.exists() else None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SnapshotDamaged(f"it cannot be read: {type(error).__name__}") from error

    def begin(self) -> Rows:
        """Columns in new files, which no manifest speaks of yet."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = [int(name) for name in self._generations() if name.isdigit()]
        folder = self._folder / str(max(taken, default=0) + 1)
        folder.mkdir(mode=0o700)
        return Rows(self._dimension, self._dtype, folder)

    def save(self, kept: Rows, snapshot: Snapshot) -> None:
        """Make this the snapshot; the one before goes. Raises OSError, and then the one before stays."""
        assert kept.folder is not None
        kept.sync()
        sync_folder(kept.folder)
        codes = snapshot.codes
        content = {
            **self._claims,
            "generation": kept.folder.name,
            "rows": snapshot.rows,
            "words": kept.words(snapshot.rows),
            "revision": snapshot.revision,
            "trained_on": snapshot.trained_on,
            "codes_shape": None if codes is None else codes.shape,
            "codes": None if codes is None else base64.b64encode(codes.astype("<f4").tobytes()).decode(),
        }
        body = json.dumps(content, sort_keys=True)
        text = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "content": body})
        partial = self._folder / f"{_MANIFEST}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(self._folder / _MANIFEST)
        sync_folder(self._folder)
        self.discard(keep=kept.folder.name)

    def load(self) -> tuple[Rows, Snapshot] | None:
        """The snapshot, its structure checked but not its rows; None when there is none.

        Raises:
            SnapshotDamaged: it is there and cannot be used.
        """
        manifest = self._folder / _MANIFEST
        if not manifest.exists():
            return None
        try:
            content = _read_manifest(manifest)
            if {key: content[key] for key in self._claims} != self._claims:
                raise SnapshotDamaged("it was made for other embeddings or by another release")
            count = int(content["rows"])
            kept = Rows(self._dimension, self._dtype, self._folder / str(int(content["generation"])))
            _check_structure(kept, count, int(content["words"]))
            codes = content["codes"] and np.frombuffer(base64.b64decode(content["codes"]), dtype="<f4").reshape(
                content["codes_shape"]
            )
            snapshot = Snapshot(count, int(content["revision"]), codes, int(content["trained_on"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SnapshotDamaged(f"it cannot be read: {type(error).__name__}") from error
        kept.removed_at.reserve(kept.capacity_on_disk)
        kept.removed_at.array[:count] = ALIVE
        return kept, snapshot

    def discard(self, keep: str | None = None) -> None:
        """Delete all generations but one; without one to keep, the manifest too."""
        if keep is None:
            (self._folder / _MANIFEST).unlink(missing_ok=True)
        for name in self._generations():
            if name != keep:
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def _generations(self) -> list[str]:
        return [entry.name for entry in self._folder.iterdir() if entry.is_dir()] if self._folder.is_dir() else []


def reconciled(kept: Rows, rows: int, live: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the first rows hold faces that are still enrolled, (rows,) bool, after a look at every one of them.

    Args:
        kept: the columns of a snapshot.
        rows: that it counts.
        live: keys of the faces enrolled in the gallery, ascending.

    Raises:
        SnapshotDamaged: a face that should be among the rows is not, or its row is not what was written.
    """
    keys = kept.keys.array[:rows]
    places = np.minimum(np.searchsorted(live, keys), max(len(live) - 1, 0))
    alive = live[places] == keys if len(live) else np.zeros(rows, dtype=np.bool_)
    lacking = int(np.searchsorted(live, keys[-1], side="right")) - int(alive.sum())
    if lacking:
        raise SnapshotDamaged(f"it lacks {lacking} faces")
    wrong = int((kept.checks.array[:rows] != kept.checksums(0, rows))[alive].sum())
    if wrong:
        raise SnapshotDamaged(f"{wrong} rows are not what was written")
    return alive


def _read_manifest(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise ValueError("the manifest is too large")
    outer = json.loads(path.read_text())
    if hashlib.sha256(outer["content"].encode()).hexdigest() != outer["sha256"]:
        raise ValueError("the manifest is not what was written")
    content: dict[str, Any] = json.loads(outer["content"])
    return content


def _check_structure(kept: Rows, rows: int, words: int) -> None:
    """Raises ValueError for columns that do not hold so many rows in the order that searches rely on."""
    if rows < 1 or kept.capacity_on_disk < rows or len(kept.id_words.array) < words:
        raise ValueError("a file is too short")
    if (np.diff(kept.keys.array[:rows]) <= 0).any():
        raise ValueError("keys do not ascend")
    ends = kept.id_ends.array[:rows]
    if ends[0] < 1 or (np.diff(ends) < 1).any() or ends[-1] != words:
        raise ValueError("ids overlap")
