"""Commands that train, export and evaluate the mask classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from model_training.data.faces import AlignedFaces
from model_training.data.pictures import people_in_pairs
from model_training.mask import training
from model_training.mask.collections import held_out_sources, split
from model_training.mask.evaluation import error_rates
from model_training.mask.examples import ExamplePainter
from model_training.mask.export import export_mask
from model_training.mask.recipe import MaskRecipe
from model_training.shipping.card import write_card
from model_training.shipping.export import embed_faces, record_metrics
from service.vision.attributes.mask import OnnxMaskNetwork

app = typer.Typer(help="The mask classifier: train, export, evaluate.", no_args_is_help=True)

_MODELS = Path(__file__).parents[2] / "service" / "models"

Masked = Annotated[list[Path], typer.Option("--masked", help="Prepared faces with masks.")]
Bare = Annotated[list[Path], typer.Option("--bare", help="Prepared faces without.")]
RunFolder = Annotated[Path, typer.Option("--run", file_okay=False, help="Folder of network, log and split.")]
ModelFile = Annotated[Path, typer.Option("--model", dir_okay=False, help="The ONNX file, manifest beside it.")]


@app.command()
def train(
    *,
    recipe: Annotated[Path, typer.Option(exists=True, dir_okay=False)],
    masked: Masked,
    bare: Bare,
    run: RunFolder,
    embedder: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Says which pictures look alike.")
    ] = _MODELS / "student.onnx",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1,
) -> None:
    """Train a classifier on prepared faces, part of which is held out and listed in the run's folder."""
    torch.set_num_threads(threads)
    settings = MaskRecipe.from_toml(recipe)
    folders = [*((folder, True) for folder in masked), *((folder, False) for folder in bare)]
    collections = split(
        folders,
        [embed_faces(embedder, AlignedFaces.load(folder)) for folder, _ in folders],
        held_out=settings.held_out,
        alike=settings.alike,
        seed=settings.seed,
    )
    painter = ExamplePainter(
        [each.learned() for each in collections if each.masked],
        [each.learned() for each in collections if not each.masked],
        drawn=settings.drawn,
        covered=settings.covered,
    )
    run.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "held_out": held_out_sources(collections),
        "learned": {each.name: int((~each.held_out).sum()) for each in collections},
        "masked": [each.name for each in collections if each.masked],
    }
    (run / "split.json").write_text(json.dumps(about, indent=1))
    training.train(settings, painter, run)
    typer.echo(f"{run}: trained on {sum(about['learned'].values())} faces")


@app.command()
def export(run: RunFolder, out: Annotated[Path, typer.Option(dir_okay=False)] = _MODELS / "mask.onnx") -> None:
    """Write the ONNX file with manifest and model card."""
    trained = training.load(run)
    about = json.loads((run / "split.json").read_text())
    data = [
        f"{name}: {count:,} faces {'with masks' if name in about['masked'] else 'without'}, "
        f"{len(about['held_out'][name]):,} more held out"
        for name, count in about["learned"].items()
    ]
    settings = trained.recipe.model_dump(mode="json")
    manifest = export_mask(trained.network, trained.recipe, out, data=data, training={"recipe": settings})
    write_card(out.parent)
    typer.echo(f"{out}: {manifest.parameters:,} parameters, {manifest.size_bytes:,} bytes")


@app.command()
def evaluate(
    *,
    run: RunFolder,
    masked: Masked,
    bare: Bare,
    model: ModelFile = _MODELS / "mask.onnx",
    lfw: Annotated[Path | None, typer.Option(help="All of LFW, prepared.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="LFW's pairs.txt: only whom it names counts.")] = None,
    record: Annotated[bool, typer.Option(help="Write the figures into manifest and model card.")] = False,
) -> None:
    """Count false alarms and missed masks among the held-out faces of a run, and on LFW's test people."""
    held_out = {
        name: set(sources) for name, sources in json.loads((run / "split.json").read_text())["held_out"].items()
    }

    def kept(folder: Path) -> Any:
        faces = AlignedFaces.load(folder)
        return np.asarray(faces.crops[[source in held_out[folder.name] for source in faces.sources]])

    without = {f"{folder.name}, held out": kept(folder) for folder in bare}
    if lfw is not None and pairs is not None:
        named, faces = people_in_pairs(pairs), AlignedFaces.load(lfw)
        without["lfw, people of the pairs"] = faces.crops[[person in named for person in faces.people()]]
    figures = error_rates(
        OnnxMaskNetwork(model), {f"{folder.name}, held out": kept(folder) for folder in masked}, without
    )
    if record:
        record_metrics(model, figures)
        write_card(model.parent)
    typer.echo(json.dumps(figures, indent=2))
