"""Which folder within the data folder is served, and by which model, once there has been a change of model."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract import ContractError, read_manifest
from service.domain import StorageUnusable
from service.gallery.folder import sync_folder
from service.gallery.schema import DATABASE_FILE
from service.gallery.snapshot import INDEX_FOLDER

ACTIVE_FILE = "active.json"
SPACES_FOLDER = "spaces"

_MAX_FILE_BYTES = 100_000
_MAX_REPLACED = 100
_FOLDER = r"^(\.|spaces/sf1-[0-9a-f]{16})$"


class Place(BaseModel):
    """A folder of embeddings and the model that they are of.

    Attributes:
        folder: relative to the data folder; `.` is the data folder itself.
        embedder: absolute path of the ONNX file.
        space_id, dimension: of the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(pattern=_FOLDER)
    embedder: Path
    space_id: str
    dimension: int = Field(ge=1, le=4096)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder: str = Field(pattern=_FOLDER)
    embedder: Path
    space_id: str
    dimension: int = Field(ge=1, le=4096)
    previous: Place | None = None
    pending: Place | None = None
    replaced: tuple[str, ...] = Field(default=(), max_length=_MAX_REPLACED)


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a data folder.

    Attributes:
        active: what is served.
        previous: what was served before and can be gone back to.
        pending: what a migration is filling.
        replaced: spaces that were changed away from. A setting that names a model of one of them is out of date.
    """

    active: Place
    previous: Place | None = None
    pending: Place | None = None
    replaced: tuple[str, ...] = ()

    def switched(self, target: Place) -> Places:
        """The target served, and what was served kept beside it."""
        spaces = (*self.replaced, self.active.space_id)
        replaced = tuple(dict.fromkeys(space for space in spaces if space != target.space_id))[-_MAX_REPLACED:]
        return Places(target, self.active, None, replaced)


def place_of(embedder: Path, folder: str | None = None) -> Place:
    """The place for a model: by default the folder that is named after its space.

    Raises:
        ContractError: there is no such embedder, or it is not what its manifest says.
    """
    manifest = read_manifest(embedder)
    if manifest.space_id is None or manifest.dimension is None:
        raise ContractError(f"{embedder} is not an embedder")
    return Place(
        folder=folder or f"{SPACES_FOLDER}/{manifest.space_id}",
        embedder=embedder.absolute(),
        space_id=manifest.space_id,
        dimension=manifest.dimension,
    )


def read_places(data_dir: Path, embedder: Path) -> Places:
    """What `active.json` says; without it, the data folder itself and the model of the settings.

    The settings' model is served where it is of the active space, wherever its file lies now. Where it is of a space
    that was changed away from, the active model is. Any other is taken as it is, and the gallery refuses it.

    Args:
        embedder: path of the settings.

    Raises:
        ContractError: the settings' model is missing or damaged.
        StorageUnusable: the file is damaged or cannot be read.
    """
    found = _read(data_dir / ACTIVE_FILE)
    asked = place_of(embedder, ".")
    if found is None:
        return Places(asked)
    active = found.active
    known = {place.space_id for place in (found.previous, found.pending) if place is not None} | set(found.replaced)
    if asked.space_id == active.space_id or asked.space_id not in known:
        active = asked.model_copy(update={"folder": active.folder})
    return replace(found, active=active)


def write_places(data_dir: Path, places: Places) -> None:
    """Replace `active.json` atomically and durably; where it would say what is so without it, there is none.

    Raises:
        StorageUnusable: it cannot be written.
    """
    path = data_dir / ACTIVE_FILE
    document = _Document(
        **places.active.model_dump(), previous=places.previous, pending=places.pending, replaced=places.replaced
    )
    try:
        if places == Places(places.active) and places.active.folder == ".":
            path.unlink(missing_ok=True)
        else:
            if (data_dir / SPACES_FOLDER).exists():
                # What the file names must be on disk before the file is.
                sync_folder(data_dir / SPACES_FOLDER)
            partial = path.with_name(f"{ACTIVE_FILE}.partial")
            with partial.open("wb") as stream:
                stream.write(document.model_dump_json(indent=2).encode())
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        sync_folder(data_dir)
    except OSError as error:
        raise StorageUnusable(f"{path} cannot be written: {error.strerror}", file=str(path)) from error


def gallery_folder(data_dir: Path) -> Path:
    """The folder with the database that is served. Raises StorageUnusable."""
    found = _read(data_dir / ACTIVE_FILE)
    return data_dir if found is None else data_dir / found.active.folder


def remove_place(data_dir: Path, place: Place) -> None:
    """Remove a place's embeddings for good. Raises StorageUnusable."""
    folder = data_dir / place.folder
    try:
        if place.folder != ".":
            shutil.rmtree(folder, ignore_errors=False)
            sync_folder(folder.parent)
            return
        # Here lie the other places too, and the API keys.
        for suffix in ("", "-wal", "-shm", "-journal"):
            (folder / f"{DATABASE_FILE}{suffix}").unlink(missing_ok=True)
        if (folder / INDEX_FOLDER).exists():
            shutil.rmtree(folder / INDEX_FOLDER)
        sync_folder(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageUnusable(f"{folder} cannot be removed: {error.strerror}", folder=str(folder)) from error


def _read(path: Path) -> Places | None:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        document = _Document.model_validate(json.loads(content))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnusable(f"{path} cannot be read: {error.strerror}", file=str(path)) from error
    except (ValidationError, ValueError) as error:
        raise StorageUnusable(
            f"{path} is damaged. It says which folder is served by which model; restore it from a backup",
            file=str(path),
        ) from error
    active = Place(**document.model_dump(include={"folder", "embedder", "space_id", "dimension"}))
    return Places(active, document.previous, document.pending, document.replaced)
