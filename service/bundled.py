"""The networks that come along, in `service/models`, and how they are named."""

from __future__ import annotations

from pathlib import Path

from service.contract import ModelManifest, parse_manifest

FOLDER = Path(__file__).parent / "models"


def located(path: Path) -> Path:
    """A path as it is, or where the network lies that comes along under this bare name.

    A file of that name in the working folder goes before.
    """
    here = FOLDER / path.name
    return here if path == Path(path.name) and not path.exists() and here.is_file() else path


def name_of_space(space_id: str) -> str | None:
    """File name of the network that comes along and makes this space, if one does.

    Raises:
        ContractError: a manifest is damaged.
    """
    for path in sorted(FOLDER.glob("*.onnx")):
        if parse_manifest(path, ModelManifest).space_id == space_id:
            return path.name
    return None
