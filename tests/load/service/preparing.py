"""A data folder for load tests: drawn faces, and real people from pictures, through the import command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from service.contract import read_manifest
from service.settings import Settings
from tests.load.drawing import Modelled, Rows, source
from tests.load.service.pictures import PictureSet

_DONE = "prepared.json"


def prepared_folder(parent: Path, faces: int, pictures: PictureSet, embedder: Path | None = None) -> Path:
    """A data folder with this many drawn faces and the people of `pictures.enrolled`; an earlier one is reused.

    With `embedder` the people are embedded by that network instead of the one of the settings.

    Raises:
        subprocess.CalledProcessError: an import failed.
    """
    embedder = embedder or Settings().embedder_path
    manifest = read_manifest(embedder)
    folder = parent / f"data-{faces}-{pictures.root.name}-{manifest.space_id}"
    if (folder / _DONE).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if faces:
        _import_drawn(folder, faces, manifest.dimension, embedder)
    # Where a picture has no face or several, its person is not enrolled; the command then ends with 1.
    stored = _import(folder, pictures.enrolled, "people", embedder, allowed=(0, 1))
    people = sorted(item.removeprefix("folder ") for item in stored)
    about = {"faces_drawn": faces, "space_id": str(manifest.space_id), "people": people}
    (folder / _DONE).write_text(json.dumps(about))
    return folder


def people_in(folder: Path) -> frozenset[str]:
    """Who of the pictures is enrolled in a folder of `prepared_folder`."""
    return frozenset(json.loads((folder / _DONE).read_text())["people"])


def write_drawn(target: Path, faces: int, dimension: int) -> None:
    """Faces of the model fitted to the student's own, as .npy."""
    rows = Rows(source("modelled", dimension), faces)
    stored = np.lib.format.open_memmap(target, "w+", np.float32, (faces, dimension))
    for start, chunk in rows.chunks():
        stored[start : start + len(chunk)] = chunk
    stored.flush()


def _import_drawn(folder: Path, faces: int, dimension: int, embedder: Path) -> None:
    """Drawn faces and their ids, which are gone again afterwards."""
    array, ids = folder / "drawn.npy", folder / "drawn.txt"
    write_drawn(array, faces, dimension)
    ids.write_text("".join(f"drawn-{row // Modelled.faces_a_person:07d}\n" for row in range(faces)))
    _import(folder, array, "drawn", embedder, "--ids", str(ids))
    array.unlink()
    ids.unlink()


def _import(
    folder: Path, what: Path, name: str, embedder: Path, *more: str, allowed: tuple[int, ...] = (0,)
) -> list[str]:
    """Run the import command; the items of its outcome file that are stored."""
    outcomes = folder / f"{name}.outcomes.ndjson"
    command = [sys.executable, "-m", "service.cli", "import", str(what), "--data-dir", str(folder)]
    # A poor picture enrols as well: who is not enrolled would count as missed.
    environment = {
        **os.environ,
        "SHRINKFACE_QUALITY_GATE": "off",
        "SHRINKFACE_EMBEDDER_PATH": str(embedder.absolute()),
    }
    ended = subprocess.run([*command, "--outcomes", str(outcomes), *more], env=environment, check=False)
    if ended.returncode not in allowed:
        raise subprocess.CalledProcessError(ended.returncode, command)
    with outcomes.open() as lines:
        next(lines)
        noted = (json.loads(line) for line in lines)
        stored = [outcome["item"] for outcome in noted if outcome["status"] != "failed"]
    # A line for each of a million faces.
    outcomes.unlink()
    return stored
