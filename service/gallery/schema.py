"""The database file: how it is opened, what its tables are, and how an older one is brought up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from service.domain import DomainError, Overloaded, SpaceMismatch, StorageFull, StorageUnusable

DATABASE_FILE = "gallery.sqlite"
BUSY_TIMEOUT_MS = 2_000
_PRAGMAS = (
    "synchronous = FULL",
    "secure_delete = ON",
    "foreign_keys = ON",
    "temp_store = MEMORY",
)
# The log is carried into the database when it has so many pages, 64 MB: a bulk import changes the same pages of the
# indexes again and again, and they are then written once.
_LOG_PAGES = 16_384

Migration = tuple[str, ...]

# One entry a schema version; an entry that has been released is never edited.
#
# Embeddings, profiles and crops stand in tables of their own whose rows are appended and blanked in place, never
# deleted and never changed in length. SQLite's secure_delete zeroes a deleted row, but not the copies that page
# balancing leaves behind in the unused part of a page when a neighbour's deletion moves the row; rows that are never
# moved have no such copies.
MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE galleries (
            gallery_key INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            persons INTEGER NOT NULL DEFAULT 0,
            faces INTEGER NOT NULL DEFAULT 0,
            revision INTEGER NOT NULL DEFAULT 0
        )
        """,
        """
        CREATE TABLE persons (
            person_key INTEGER PRIMARY KEY AUTOINCREMENT,
            gallery_key INTEGER NOT NULL REFERENCES galleries,
            person_id TEXT NOT NULL,
            name TEXT,
            metadata TEXT NOT NULL,
            created_at_us INTEGER NOT NULL,
            UNIQUE (gallery_key, person_id)
        )
        """,
        "CREATE TABLE embeddings (face_key INTEGER PRIMARY KEY AUTOINCREMENT, vector BLOB NOT NULL)",
        """
        CREATE TABLE faces (
            face_key INTEGER PRIMARY KEY REFERENCES embeddings,
            person_key INTEGER NOT NULL REFERENCES persons,
            gallery_key INTEGER NOT NULL REFERENCES galleries,
            face_id TEXT NOT NULL,
            quality TEXT NOT NULL,
            crop_digest TEXT NOT NULL,
            created_at_us INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            UNIQUE (gallery_key, face_id)
        )
        """,
        "CREATE INDEX faces_by_person ON faces (person_key)",
        "INSERT INTO meta (key, value) VALUES ('revision', 0)",
    ),
    (
        "ALTER TABLE galleries ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
        # Names and metadata move to rows that are never moved either: blanked in place, and a changed one is a new row.
        "CREATE TABLE profiles (profile_key INTEGER PRIMARY KEY AUTOINCREMENT, name, metadata NOT NULL)",
        "INSERT INTO profiles (profile_key, name, metadata) SELECT person_key, name, metadata FROM persons",
        "ALTER TABLE persons ADD COLUMN profile_key INTEGER",
        "ALTER TABLE persons ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
        "UPDATE persons SET profile_key = person_key",
        "ALTER TABLE persons DROP COLUMN name",
        "ALTER TABLE persons DROP COLUMN metadata",
        "ALTER TABLE faces ADD COLUMN expires_at_us INTEGER",
        "CREATE INDEX faces_by_expiry ON faces (expires_at_us) WHERE expires_at_us IS NOT NULL",
        "CREATE TABLE crops (face_key INTEGER PRIMARY KEY REFERENCES embeddings, image BLOB NOT NULL)",
        """
        CREATE TABLE journal (
            entry_key INTEGER PRIMARY KEY AUTOINCREMENT,
            at_us INTEGER NOT NULL,
            actor TEXT NOT NULL,
            action TEXT NOT NULL,
            gallery TEXT NOT NULL,
            person_id TEXT,
            counts TEXT NOT NULL
        )
        """,
        "CREATE INDEX journal_by_person ON journal (gallery, person_id)",
        # Answers to requests that may be repeated; they hold neither names nor embeddings.
        """
        CREATE TABLE replays (
            replay_key TEXT PRIMARY KEY,
            at_us INTEGER NOT NULL,
            fingerprint TEXT NOT NULL,
            gallery TEXT NOT NULL,
            person_id TEXT NOT NULL,
            answer BLOB
        )
        """,
        "CREATE INDEX replays_by_person ON replays (gallery, person_id)",
    ),
)


def as_domain_error(error: sqlite3.Error) -> DomainError:
    """What a caller can be told of an SQLite error."""
    extended = int(getattr(error, "sqlite_errorcode", 0))
    primary = extended & 0xFF
    # SQLite reports ENOSPC as FULL, but a quota or a file size limit as a failed write.
    if primary == sqlite3.SQLITE_FULL or extended in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE):
        return StorageFull("the disk took no more; nothing of this request was stored")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Overloaded("another program holds a lock on the database")
    return StorageUnusable(f"the database failed: {error}")


def open_writer(folder: Path, *, space_id: str, dimension: int) -> sqlite3.Connection:
    """The one connection that writes, to a database of the newest schema and of this embedding space.

    Returns:
        A connection without implicit transactions, that any one thread at a time may use.

    Raises:
        SpaceMismatch: the folder holds embeddings of another space.
        StorageFull, StorageUnusable: the file cannot be used.
    """
    try:
        connection = sqlite3.connect(folder / DATABASE_FILE, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise as_domain_error(error) from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _turn_on_log(connection)
        # Temporary files in memory: a savepoint's undo log would otherwise leave embeddings in /tmp.
        for pragma in (*_PRAGMAS, f"wal_autocheckpoint = {_LOG_PAGES}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        migrate(connection)
        _claim_space(connection, space_id, dimension)
    except sqlite3.Error as error:
        connection.close()
        raise as_domain_error(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _turn_on_log(connection: sqlite3.Connection) -> None:
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != "wal":
        raise StorageUnusable("the data folder's file system cannot hold a write-ahead log; use a local disk")


def open_reader(folder: Path) -> sqlite3.Connection:
    """A connection that cannot write. The database must exist."""
    uri = (folder / DATABASE_FILE).resolve().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "query_only = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the schema to the newest version, one transaction a version.

    Raises:
        StorageUnusable: the file was written by a newer release.
        sqlite3.Error: a step failed; the file stays at the version before it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StorageUnusable(
            f"the data folder has schema version {version}, this release knows {len(migrations)}: use a newer release",
            schema_version=version,
        )
    for number, statements in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _claim_space(connection: sqlite3.Connection, space_id: str, dimension: int) -> None:
    stored = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('space_id', 'dimension')"))
    if not stored:
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('space_id', ?), ('dimension', ?)", (space_id, dimension)
        )
    elif stored != {"space_id": space_id, "dimension": dimension}:
        raise SpaceMismatch(
            f"the data folder holds embeddings of space {stored.get('space_id')} ({stored.get('dimension')} values), "
            f"the model at hand makes space {space_id} ({dimension} values), and the two cannot be compared. "
            "Either serve with the model of the folder's space, or enrol again from the pictures into a new folder.",
            stored_space_id=stored.get("space_id"),
            stored_dimension=stored.get("dimension"),
            space_id=space_id,
            dimension=dimension,
        )


def next_revision(connection: sqlite3.Connection) -> int:
    """Count one change; part of the transaction that makes it, so revisions have no gaps."""
    row = connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision' RETURNING value").fetchone()
    return int(row[0])
