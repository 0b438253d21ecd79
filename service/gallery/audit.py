"""Whether a data folder keeps its promises: what `shrinkface gallery verify` looks at."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import FolderInUse, StorageUnusable
from service.gallery import reads
from service.gallery.folder import FolderLock
from service.gallery.records import now_us
from service.gallery.schema import DATABASE_FILE, MIGRATIONS, as_domain_error, open_reader
from service.gallery.snapshot import INDEX_FOLDER, SnapshotDamaged, SnapshotFolder, reconciled
from service.gallery.vectors import STORED_DTYPE, not_unit

# A folder that is damaged throughout needs no list of a million faults.
MAX_FINDINGS = 100
_ROWS_AT_ONCE = 8_192

Progress = Callable[[int, int], None]

# Each statement lists what should not exist, one line of text a row.
_CONTRADICTIONS = (
    "SELECT 'gallery ' || name || ' counts ' || persons || ' persons and holds ' || n FROM (SELECT name, persons, "
    "(SELECT count(*) FROM persons p WHERE p.gallery_key = g.gallery_key) n FROM galleries g) WHERE n != persons",
    "SELECT 'gallery ' || name || ' counts ' || faces || ' faces and holds ' || n FROM (SELECT name, faces, "
    "(SELECT count(*) FROM faces f WHERE f.gallery_key = g.gallery_key) n FROM galleries g) WHERE n != faces",
    "SELECT 'person number ' || person_key || ' has no profile' FROM persons "
    "WHERE profile_key IS NULL OR profile_key NOT IN (SELECT profile_key FROM profiles)",
    "SELECT 'profile number ' || profile_key || ' belongs to no person and is not blank' FROM profiles "
    "WHERE profile_key NOT IN (SELECT profile_key FROM persons WHERE profile_key IS NOT NULL) "
    "AND (metadata != zeroblob(length(metadata)) OR name != zeroblob(length(name)))",
    "SELECT 'crop number ' || face_key || ' belongs to no face and is not blank' FROM crops "
    "WHERE face_key NOT IN (SELECT face_key FROM faces) AND image != zeroblob(length(image))",
    "SELECT 'face number ' || face_key || ' lies in another gallery than its person' FROM faces "
    "JOIN persons USING (person_key) WHERE faces.gallery_key != persons.gallery_key",
    "SELECT 'face number ' || face_key || ' has no embedding' FROM faces LEFT JOIN embeddings USING (face_key) "
    "WHERE vector IS NULL",
    "SELECT 'embedding number ' || face_key || ' belongs to no face and is not blank' FROM embeddings "
    "WHERE face_key NOT IN (SELECT face_key FROM faces) AND vector != zeroblob(length(vector))",
    "SELECT 'face number ' || face_key || ' is of revision ' || revision || ', after the last one' FROM faces "
    "WHERE revision > (SELECT value FROM meta WHERE key = 'revision')",
    "SELECT 'gallery ' || name || ' is of revision ' || revision || ', after the last one' FROM galleries "
    "WHERE revision > (SELECT value FROM meta WHERE key = 'revision')",
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit saw. Findings name galleries, and persons and faces by number; at most `MAX_FINDINGS` are kept.

    Attributes:
        snapshots: of search indexes that were looked at; None where the folder could not be had for that.
    """

    galleries: int
    persons: int
    faces: int
    revision: int
    snapshots: int | None
    findings: tuple[str, ...]


def audit(folder: Path, progress: Progress | None = None) -> Audit:
    """Check the database of a data folder, in one snapshot, so a service may go on using it.

    Looks at the file's structure, at references and counts, at every embedding (length, finite, unit length), and that
    nothing is left of those that were erased. Where no service uses the folder, the snapshots of the search indexes are
    looked at as well, row by row.

    Args:
        folder: with a database of the newest schema.
        progress: called now and then with the faces looked at and the faces in all.

    Raises:
        StorageUnusable: there is no such database, or it cannot be read at all.
    """
    if not (folder / DATABASE_FILE).is_file():
        raise StorageUnusable(f"{folder} holds no gallery", folder=str(folder))
    try:
        connection = open_reader(folder)
    except sqlite3.Error as error:
        raise as_domain_error(error) from error
    try:
        connection.execute("BEGIN")
        return _audited(folder, connection, progress)
    except sqlite3.Error as error:
        raise as_domain_error(error) from error
    finally:
        connection.close()


def _audited(folder: Path, connection: sqlite3.Connection, progress: Progress | None) -> Audit:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != len(MIGRATIONS):
        raise StorageUnusable(
            f"the data folder has schema version {version}, this release checks {len(MIGRATIONS)}; serve it once first",
            schema_version=version,
        )
    findings: list[str] = []
    faults = [row[0] for row in connection.execute(f"PRAGMA integrity_check({MAX_FINDINGS})")]
    findings += [f"the file is damaged: {fault}" for fault in faults if fault != "ok"]
    for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(MAX_FINDINGS):
        findings.append(f"row {rowid} of {table} refers to a row of {parent} that does not exist")
    for statement in _CONTRADICTIONS:
        findings += [row[0] for row in connection.execute(statement).fetchmany(MAX_FINDINGS)]
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    (faces,) = connection.execute("SELECT count(*) FROM faces").fetchone()
    findings += _faulty_embeddings(connection, int(meta.get("dimension", 0)), faces, progress)
    snapshots, wrong = _faulty_snapshots(folder, connection, meta)
    findings += wrong
    (galleries,) = connection.execute("SELECT count(*) FROM galleries").fetchone()
    (persons,) = connection.execute("SELECT count(*) FROM persons").fetchone()
    return Audit(galleries, persons, faces, int(meta["revision"]), snapshots, tuple(findings[:MAX_FINDINGS]))


def _faulty_embeddings(
    connection: sqlite3.Connection, dimension: int, total: int, progress: Progress | None
) -> list[str]:
    findings: list[str] = []
    done, size = 0, dimension * STORED_DTYPE.itemsize
    cursor = connection.execute("SELECT face_key, vector FROM faces JOIN embeddings USING (face_key) ORDER BY face_key")
    while len(findings) < MAX_FINDINGS and (rows := cursor.fetchmany(_ROWS_AT_ONCE)):
        whole = [(key, blob) for key, blob in rows if isinstance(blob, bytes) and len(blob) == size]
        if len(whole) < len(rows):
            sound = {key for key, _ in whole}
            findings += [f"face number {key} has an embedding of the wrong size" for key, _ in rows if key not in sound]
        vectors = np.frombuffer(b"".join(blob for _, blob in whole), dtype=STORED_DTYPE).reshape(-1, dimension)
        findings += [
            f"face number {whole[row][0]} has an embedding that is not a finite vector of unit length"
            for row in not_unit(vectors.astype(np.float32, copy=False)).tolist()
        ]
        done += len(rows)
        if progress is not None:
            progress(done, total)
    return findings


def _faulty_snapshots(
    folder: Path, connection: sqlite3.Connection, meta: dict[str, Any]
) -> tuple[int | None, list[str]]:
    """How many snapshots there are, None where they are in use, and what is wrong with them."""
    try:
        lock = FolderLock(folder)
    except (FolderInUse, StorageUnusable):
        # Used by a service, or a copy that may only be read.
        return None, []
    with lock:
        names = [row[0] for row in connection.execute("SELECT name FROM galleries ORDER BY name")]
        homes = [folder / INDEX_FOLDER / name for name in names]
        homes = [home for home in homes if home.is_dir()]
        findings = []
        expired = reads.expired_keys(connection, now_us())
        for home in homes:
            keys = connection.execute(
                "SELECT face_key FROM faces JOIN galleries USING (gallery_key) WHERE name = ? ORDER BY face_key",
                (home.name,),
            )
            stored = np.fromiter((row[0] for row in keys), dtype=np.int64)
            hidden = np.array(expired.get(home.name, ()), dtype=np.int64)
            try:
                findings += _faulty_rows(home, meta, stored, hidden)
            except SnapshotDamaged as damage:
                findings.append(f"the snapshot of gallery {home.name} is damaged: {damage}")
        return len(homes), findings


def _faulty_rows(home: Path, meta: dict[str, Any], stored: NDArray[np.int64], hidden: NDArray[np.int64]) -> list[str]:
    """What is wrong with a gallery's snapshot.

    Args:
        stored: keys of the gallery's faces, ascending.
        hidden: keys of those of them whose time has come. Their rows may be in the snapshot, whole or blanked, or not.

    Raises:
        SnapshotDamaged: it cannot be used.
    """
    dtype = SnapshotFolder.dtype_of(home)
    if dtype is None:
        return []
    loaded = SnapshotFolder(home, space_id=meta["space_id"], dimension=meta["dimension"], dtype=dtype).load()
    if loaded is None:
        return []
    kept, snapshot = loaded
    live = np.setdiff1d(stored, hidden, assume_unique=True)
    dead = np.flatnonzero(~reconciled(kept, snapshot.rows, live))
    erased = dead[~np.isin(kept.keys.array[dead], hidden)]
    left = int((~kept.blank_rows(erased)).sum())
    return [f"the snapshot of gallery {home.name} holds {left} faces that were erased"] if left else []
