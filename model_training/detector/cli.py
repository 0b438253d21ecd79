"""Commands that label, train, export and evaluate the detector."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from model_training.data.pictures import pictures_in
from model_training.detector import evaluation
from model_training.detector.bank import CanvasBank, draw_canvases
from model_training.detector.canvases import CanvasPainter
from model_training.detector.export import SERVED_THRESHOLD, export_detector, with_scores_lowered, write_manifest
from model_training.detector.labels import label_pictures, load_labels, pictures_in_pairs
from model_training.detector.network import FaceNetwork
from model_training.detector.patience import CellTeacher, Painter, PatientPainter
from model_training.detector.recipe import DetectorRecipe
from model_training.detector.training import DetectorTrainer

app = typer.Typer(help="The face and landmark detector: label, train, export, evaluate.", no_args_is_help=True)

RecipeFile = Annotated[Path, typer.Option("--recipe", exists=True, dir_okay=False, help="Recipe in TOML.")]
TeacherFile = Annotated[Path, typer.Option("--teacher", exists=True, dir_okay=False, help="YuNet's ONNX file.")]
LabelsFile = Annotated[Path, typer.Option("--labels", dir_okay=False, help="Labels that `label` wrote.")]
LfwFolder = Annotated[Path, typer.Option("--lfw-dir", exists=True, file_okay=False, help="LFW, a folder per person.")]
PairsFile = Annotated[Path, typer.Option("--pairs", exists=True, dir_okay=False, help="LFW's pairs.txt.")]
RunFolder = Annotated[Path, typer.Option("--run", file_okay=False, help="Folder of checkpoint, log and canvases.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.command()
def label(
    *,
    teacher: TeacherFile,
    lfw_dir: LfwFolder,
    pairs: PairsFile,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Labels to write.")],
    recipe: RecipeFile,
    pictures: Annotated[list[Path], typer.Option("--pictures", help="More folders; each is named after itself.")],
    faceless: Annotated[list[Path] | None, typer.Option("--faceless", help="Folders of photos without faces.")] = None,
    threads: Threads = 2,
) -> None:
    """Let the teacher label the training pictures: LFW outside the pairs, and whole folders."""
    named = pictures_in_pairs(pairs)
    collections = {"lfw": [p for p in pictures_in(lfw_dir) if f"{p.parent.name}/{p.name}" not in named]}
    collections |= {folder.name: pictures_in(folder) for folder in pictures}
    held_out = DetectorRecipe.from_toml(recipe).held_out
    background = [picture for folder in faceless or [] for picture in pictures_in(folder)]
    count = label_pictures(
        collections,
        evaluation.open_teacher(teacher),
        out,
        faceless=background,
        held_out=held_out,
        threads=threads,
    )
    typer.echo(f"{count} pictures labelled")


@app.command()
def train(
    recipe: RecipeFile,
    labels: LabelsFile,
    run: RunFolder,
    threads: Threads = 2,
    start: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Checkpoint or exported file to start from.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="YuNet's ONNX file, for a patient recipe.")
    ] = None,
    compiled: Annotated[bool, typer.Option(help="Run through torch.compile.")] = False,
) -> None:
    """Draw the canvases, then train; an interrupted run of the same recipe goes on where it stopped."""
    torch.set_num_threads(threads)
    settings = DetectorRecipe.from_toml(recipe)
    if settings.patient and teacher is None:
        raise typer.BadParameter("a patient recipe needs --teacher", param_hint="--teacher")
    pictures = load_labels(labels)
    learned = [picture for picture in pictures if not picture.held_out]
    kept = [picture for picture in pictures if picture.held_out]
    plan = {
        "held_out": (kept, settings.small.side_px, 10 * settings.small.batch, settings.seed + 2),
        "small": (learned, settings.small.side_px, settings.small.count, settings.seed),
        "large": (learned, settings.large.side_px, settings.large.count, settings.seed + 1),
    }
    for name, (group, side_px, count, seed) in plan.items():
        painter: Painter = CanvasPainter(group, settings.shares, side_px, settings.served)
        if settings.patient and teacher is not None:
            painter = PatientPainter(painter, CellTeacher(teacher))
        draw_canvases(painter, run / name, count=count, seed=seed, threads=threads)
    small, large, held_out = (CanvasBank(run / name) for name in ("small", "large", "held_out"))
    trainer = DetectorTrainer(settings, small, large, held_out, run, compiled=compiled)
    if trainer.resume():
        typer.echo(f"resumed at step {trainer.step}")
    elif start is not None:
        trainer.start_from(start)
    trainer.train()


def _load_run(run: Path) -> tuple[FaceNetwork, DetectorRecipe, dict[str, Any]]:
    """The network of a run's checkpoint, its recipe, and what a manifest says of the training."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    settings = DetectorRecipe.model_validate_json(state["recipe"])
    network = FaceNetwork(settings.width)
    network.load_state_dict(state["network"])
    large_steps = state["step"] // settings.large_every
    training = {
        "steps": state["step"],
        "canvases": (state["step"] - large_steps) * settings.small.batch + large_steps * settings.large.batch,
        "distinct_canvases": settings.small.count + settings.large.count,
        "minutes": round(state["seconds"] / 60, 1),
        "earlier_stages": {
            "steps": int(state["earlier"]["steps"]),
            "minutes": round(state["earlier"]["seconds"] / 60, 1),
        },
        "recipe": settings.model_dump(mode="json"),
    }
    with (run / "log.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    training["held_out_loss"] = {k.removeprefix("held_out_"): float(v) for k, v in last.items() if "held_out" in k}
    return network, settings, training


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="ONNX file to write, manifest beside it.")],
    also: Annotated[list[str] | None, typer.Option("--data", help="More data to name in the manifest.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Raw score that becomes 0.6, from `main_face_score_p1`.")
    ] = SERVED_THRESHOLD,
    metrics: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="What `evaluate` wrote.")] = None,
) -> None:
    """Write the ONNX file and its manifest; run again with --metrics once the file is evaluated."""
    network, settings, training = _load_run(run)
    difference = export_detector(with_scores_lowered(network, threshold), out)
    training["raw_score_that_became_0.6"] = threshold
    figures = json.loads(metrics.read_text()) if metrics else {}
    data = [f"{name} (weight {share})" for name, share in settings.shares.items()]
    data += ["of LFW only pictures that pairs.txt does not name", *(also or [])]
    manifest = write_manifest(out, data=data, training=training, metrics=figures)
    typer.echo(f"{out}: {manifest.parameters} parameters, {manifest.size_bytes} bytes, off by {difference:.1e}")


@app.command()
def evaluate(
    *,
    model: Annotated[Path, typer.Option("--model", exists=True, dir_okay=False, help="The exported detector.")],
    teacher: TeacherFile,
    lfw_dir: LfwFolder,
    pairs: PairsFile,
    labels: LabelsFile,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Metrics to write, JSON.")],
    held_out_only: Annotated[bool, typer.Option(help="Leave the benchmark alone, as while still choosing.")] = False,
    threads: Threads = 2,
) -> None:
    """Compare an exported detector with its teacher, and count what it sees where nothing is."""
    detector = evaluation.open_at(model, evaluation.SCORE_THRESHOLD)
    opened = evaluation.open_teacher(teacher)
    held_out = [picture.path for picture in load_labels(labels) if picture.held_out]
    figures: dict[str, Any] = {
        "held_out_pictures": evaluation.compare_with_teacher(detector, opened, held_out, threads=threads).rounded()
    }
    low = evaluation.open_at(model, evaluation.LABEL_SCORE_THRESHOLD)
    scores = evaluation.main_face_scores(low, opened, held_out, threads=threads)
    figures["main_face_score_p1"] = round(float(np.percentile(scores, 1)), 4)
    if not held_out_only:
        named = [lfw_dir / name for name in sorted(pictures_in_pairs(pairs))]
        compared = evaluation.compare_with_teacher(detector, opened, named, threads=threads)
        figures["lfw_pairs_pictures"] = compared.rounded()
        faceless = evaluation.sample_photos_without_faces()
        if faceless:
            score = evaluation.highest_faceless_score(lambda at: evaluation.open_at(model, at), faceless.values())
            figures["faceless_highest_score"] = round(score, 4)
        figures["portraits"] = {
            f"{name}, {change}": evaluation.portrait_error(detector, opened, view)
            for name, photo in evaluation.sample_photos_with_faces().items()
            for change, view in evaluation.changed_portraits(photo).items()
        }
    out.write_text(json.dumps(figures, indent=2) + "\n")
    typer.echo(json.dumps(figures, indent=2))
