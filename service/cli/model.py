"""`shrinkface model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer

from service.cli.configuration import settings_of
from service.cli.rendering import AsJson, complain, print_json, print_table
from service.contract import ContractError, ModelManifest, read_manifest
from service.vision.attributes.manifest import read_attribute_manifest
from service.vision.attributes.network import AttributeNetwork

app = typer.Typer(help="Look at models.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    figures: Mapping[str, object]
    metrics: Mapping[str, object]


@app.callback()
def main() -> None:
    """Look at models."""


@app.command("show")
def show_models(as_json: AsJson = False) -> None:
    """What the configured models are: name, space, size, teacher, figures. Attribute networks are tried."""
    settings = settings_of()
    described: list[Callable[[], _Model]] = [
        partial(_model, path) for path in (settings.embedder_path, settings.detector_path)
    ]
    if settings.mask_path.exists():
        described.append(partial(_model, settings.mask_path))
    described += [partial(_attribute_network, path) for path in settings.attribute_models]
    models = []
    for describe in described:
        try:
            models.append(describe())
        except ContractError as error:
            complain(str(error))
    if as_json:
        for model in models:
            print_json({"model": model.name, **model.figures, "metrics": dict(model.metrics)})
    else:
        rows = [
            (model.name, figure, value)
            for model in models
            for figure, value in {**model.figures, **model.metrics}.items()
        ]
        print_table(("model", "figure", "value"), rows)
    if len(models) < len(described):
        raise typer.Exit(code=1)


def _model(path: Path) -> _Model:
    manifest = read_manifest(path)
    return _Model(manifest.name, _figures(manifest), manifest.metrics)


def _attribute_network(path: Path) -> _Model:
    manifest = read_attribute_manifest(path)
    # As a service does when it starts, so that what would stop it is told here.
    AttributeNetwork(path, manifest)
    figures = {
        "role": "attribute-network",
        "tells": ", ".join(reading.name for reading in manifest.readings),
        "size_bytes": path.stat().st_size,
        "licence": manifest.licence,
    }
    return _Model(manifest.name, figures, {})


def _figures(manifest: ModelManifest) -> dict[str, object]:
    return {
        "role": manifest.role,
        "space_id": manifest.space_id or None,
        "parameters": manifest.parameters,
        "size_bytes": manifest.size_bytes,
        "teacher": manifest.teacher,
        "licence": manifest.licence,
    }
