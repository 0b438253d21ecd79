"""`shrinkface model`."""

from __future__ import annotations

import typer

from service.cli.configuration import settings_of
from service.cli.rendering import AsJson, complain, print_json, print_table
from service.contract import ContractError, ModelManifest, read_manifest

app = typer.Typer(help="Look at models.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Look at models."""


@app.command("show")
def show_models(as_json: AsJson = False) -> None:
    """What the configured models are: name, space, size, teacher, figures."""
    settings = settings_of()
    manifests: list[ModelManifest] = []
    paths = [settings.embedder_path, settings.detector_path]
    if settings.mask_path.exists():
        paths.append(settings.mask_path)
    for path in paths:
        try:
            manifests.append(read_manifest(path))
        except ContractError as error:
            complain(str(error))
    if as_json:
        for manifest in manifests:
            print_json({"model": manifest.name, **_figures(manifest), "metrics": dict(manifest.metrics)})
    else:
        rows = [
            (manifest.name, figure, value)
            for manifest in manifests
            for figure, value in (_figures(manifest) | dict(manifest.metrics)).items()
        ]
        print_table(("model", "figure", "value"), rows)
    if len(manifests) < len(paths):
        raise typer.Exit(code=1)


def _figures(manifest: ModelManifest) -> dict[str, object]:
    return {
        "role": manifest.role,
        "space_id": manifest.space_id or None,
        "parameters": manifest.parameters,
        "size_bytes": manifest.size_bytes,
        "teacher": manifest.teacher,
        "licence": manifest.licence,
    }
