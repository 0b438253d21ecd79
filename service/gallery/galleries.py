"""Galleries as rows: making, configuring and listing them, within a transaction that somebody else began."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

from service.domain import GalleryExists, GallerySettings
from service.gallery import records
from service.gallery.erasing import DROPPED
from service.gallery.schema import next_revision
from service.ports import GallerySummary


def create(connection: sqlite3.Connection, gallery: str, settings: GallerySettings) -> GallerySummary:
    """Begin an empty gallery. Raises GalleryExists."""
    made = connection.execute(
        "INSERT INTO galleries (name, settings) VALUES (?, ?) ON CONFLICT DO NOTHING", (gallery, _encoded(settings))
    )
    if not made.rowcount:
        raise GalleryExists("there is a gallery of this name already", gallery=gallery)
    revision = next_revision(connection)
    connection.execute("UPDATE galleries SET revision = ? WHERE name = ?", (revision, gallery))
    return summary(connection, gallery)


def configure(
    connection: sqlite3.Connection, gallery: str, settings: GallerySettings, expected_revision: int | None
) -> GallerySummary:
    """Replace a gallery's settings. Raises GalleryNotFound, RevisionMismatch."""
    key = records.key_of_gallery(connection, gallery)
    records.check_revision(connection, "galleries", key, expected_revision)
    revision = next_revision(connection)
    connection.execute(
        "UPDATE galleries SET settings = ?, revision = ? WHERE gallery_key = ?", (_encoded(settings), revision, key)
    )
    return summary(connection, gallery)


def summary(connection: sqlite3.Connection, gallery: str) -> GallerySummary:
    """One gallery. Raises GalleryNotFound."""
    key = records.key_of_gallery(connection, gallery)
    name, persons, faces, revision, settings = connection.execute(
        "SELECT name, persons, faces, revision, settings FROM galleries WHERE gallery_key = ?", (key,)
    ).fetchone()
    return GallerySummary(name, persons, faces, revision, _decoded(settings))


def summaries(connection: sqlite3.Connection) -> list[GallerySummary]:
    """All galleries, by name."""
    rows = connection.execute("SELECT name, persons, faces, revision, settings FROM galleries ORDER BY name")
    return [
        GallerySummary(name, persons, faces, revision, _decoded(settings))
        for name, persons, faces, revision, settings in rows
        if not name.startswith(DROPPED)
    ]


def names(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """Key and name of each gallery."""
    rows = connection.execute("SELECT gallery_key, name FROM galleries").fetchall()
    return [(key, name) for key, name in rows if not name.startswith(DROPPED)]


def dropped(connection: sqlite3.Connection) -> list[int]:
    """Keys of galleries that were dropped and not wholly erased."""
    rows = connection.execute("SELECT gallery_key, name FROM galleries").fetchall()
    return [key for key, name in rows if name.startswith(DROPPED)]


def _encoded(settings: GallerySettings) -> str:
    return json.dumps(asdict(settings))


def _decoded(stored: str) -> GallerySettings:
    return GallerySettings(**json.loads(stored))
