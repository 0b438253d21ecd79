"""The networks that come along, in `service/models`, and how they are named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from service.contract import ContractError, ModelManifest, parse_manifest

FOLDER = Path(__file__).parent / "models"


def is_name(path: Path) -> bool:
    """Whether a path is a name alone, and no file in the working folder, which would go before."""
    return path == Path(path.name) and not path.exists()


def located(path: Path) -> Path:
    """A path as it is, or where the network lies that comes along under this name."""
    here = FOLDER / path.name
    return here if is_name(path) and here.is_file() else path


def name_of_space(space_id: str) -> str | None:
    """File name of the network that comes along and makes this space, if one does."""
    for path in sorted(FOLDER.glob("*.onnx")):
        # Whoever asks has a problem to tell of already; a damaged manifest of another network is none of it.
        with suppress(ContractError):
            if parse_manifest(path, ModelManifest).space_id == space_id:
                return path.name
    return None
