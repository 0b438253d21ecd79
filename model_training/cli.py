"""`python -m model_training`: prepare, label, distil, export, card. Each step reads what the one before wrote."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from model_training.backbones.catalogue import BACKBONES, make_backbone, multiply_adds, parameters
from model_training.backbones.mobilefacenet import MobileFaceNet
from model_training.backbones.units import MobileBackbone, fold_batch_norms, set_slope_factor
from model_training.commands.data import app as data_commands
from model_training.commands.shipping import app as shipping_commands
from model_training.commands.shipping import scores_of
from model_training.commands.teacher import app as teacher_commands
from model_training.comparison import Comparison, run_comparison
from model_training.config import DistillationRecipe
from model_training.data.bank import ViewBank, label_views
from model_training.data.faces import AlignedFaces
from model_training.data.heads import HeadError, main_landmarks, measure_head
from model_training.data.pictures import people_in_pairs, pictures_in, without_people
from model_training.detector.cli import app as detector_app
from model_training.mask.cli import app as mask_app
from model_training.shipping.card import write_card
from model_training.shipping.export import export_onnx, write_manifest
from model_training.teachers.description import DescriptionError, TeacherDescription
from model_training.teachers.layer_list import load_layer_list
from model_training.teachers.networks import RAW_PIXELS, OnnxTeacher, Teacher, TorchTeacher
from model_training.training.equalising import UnfitNetworkError
from model_training.training.exported import load_exported
from model_training.training.integer_aware import prepare_for_integers
from model_training.training.lessons import FreshLessons, Lessons, StoredLessons
from model_training.training.narrowing import narrow
from model_training.training.processes import Peers, best_device, joined
from model_training.training.shrinking import drop_blocks
from model_training.training.trainer import Trainer, trained_weights
from service.contract import Preprocessing, to_network_input
from service.vision.detection import YuNetDetector

app = typer.Typer(help="Make the models that the service runs.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_commands)
app.add_typer(teacher_commands)
app.add_typer(shipping_commands)
app.add_typer(detector_app, name="detector")
app.add_typer(mask_app, name="mask")
_console = Console()

_MODELS = Path(__file__).parent.parent / "service" / "models"
_Folder = Annotated[Path, typer.Option(file_okay=False)]
_ExistingFile = Annotated[Path, typer.Option(exists=True, dir_okay=False)]


@app.command()
def head(
    source: Annotated[list[Path], typer.Option(exists=True, file_okay=False, help="Folders of pictures.")],
    detector: _ExistingFile = _MODELS / "detector.onnx",
    exclude_pairs: Annotated[Path | None, typer.Option(help="Leave out everybody whom this pairs file names.")] = None,
) -> None:
    """Measure the mean head by which the service tells poses, as this detector sees its five landmarks."""
    pictures = [picture for folder in source for picture in pictures_in(folder)]
    if exclude_pairs is not None:
        pictures = without_people(pictures, people_in_pairs(exclude_pairs))
    landmarks = main_landmarks(pictures, YuNetDetector(detector))
    try:
        points = measure_head(landmarks)
    except HeadError as error:
        raise typer.BadParameter(str(error)) from error
    table = Table("point", "right", "down", "towards the viewer")
    for name, point in zip(("left eye", "right eye", "nose", "left of mouth", "right of mouth"), points, strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in point))
    _console.print(table)
    _console.print(f"in eye distances, of {len(landmarks)} faces in {len(pictures)} pictures")


@app.command()
def label(
    faces: Annotated[list[Path], typer.Option(help="Folders made by `prepare`.")],
    out: _Folder,
    teacher: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML that describes it: one network or several.")
    ] = None,
    teacher_onnx: Annotated[Path | None, typer.Option(help="ONNX teacher that reads RGB in 0..255.")] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help=".npz of a MobileFaceNet teacher: faster on CPUs.")
    ] = None,
    teacher_layers: Annotated[Path | None, typer.Option(help="Layer list of that .npz.")] = None,
    identities: Annotated[
        list[Path] | None, typer.Option(help="Those of `faces` whose pictures lie in a sub-folder for each person.")
    ] = None,
    views_per_face: Annotated[int, typer.Option(min=1)] = 6,
    seed: int = 7,
) -> None:
    """Draw augmented views of the faces and let the teacher label each."""
    strangers = set(identities or []) - set(faces)
    if strangers:
        raise typer.BadParameter(f"--identities names {strangers.pop()}, which is none of --faces")
    label_views(
        [AlignedFaces.load(folder) for folder in faces],
        _teacher(teacher, teacher_onnx, teacher_weights, teacher_layers),
        out,
        views_per_face=views_per_face,
        seed=seed,
        identities=[folder in (identities or []) for folder in faces],
    )


def _teacher(description: Path | None, onnx: Path | None, weights: Path | None, layers: Path | None) -> Teacher:
    if description is not None:
        return _described(description).teacher()
    if onnx is not None:
        return OnnxTeacher(onnx, RAW_PIXELS)
    if weights is not None and layers is not None:
        return TorchTeacher(load_layer_list(weights, layers), weights.stem)
    raise typer.BadParameter("give --teacher, --teacher-onnx, or --teacher-weights with --teacher-layers")


def _described(path: Path) -> TeacherDescription:
    try:
        return TeacherDescription.read(path)
    except DescriptionError as error:
        raise typer.BadParameter(str(error)) from error


def _shrunk(network: MobileFaceNet, recipe: DistillationRecipe, faces: list[AlignedFaces]) -> MobileFaceNet:
    """A trained network without the blocks and channels that the recipe's student does not have."""
    shape = recipe.mobilefacenet(network.dimension)
    if recipe.backbone is not None:
        raise typer.BadParameter(f"a {recipe.backbone} cannot start from a MobileFaceNet's blocks")
    student = fold_batch_norms(drop_blocks(network, recipe.blocks))
    if student.shape == shape:
        return student
    if not faces:
        raise typer.BadParameter("choosing channels needs --faces")
    rows = np.random.default_rng(recipe.seed).permutation(len(faces[0].crops))[:256]
    pixels = torch.from_numpy(to_network_input(np.asarray(faces[0].crops[np.sort(rows)]), Preprocessing()))
    set_slope_factor(student, 0.0 if recipe.anneal_until == 0 else 1.0)
    return narrow(student, shape, pixels)


def _fresh_student(recipe: DistillationRecipe, dimension: int) -> MobileBackbone:
    if recipe.backbone is None:
        return MobileFaceNet(recipe.mobilefacenet(dimension))
    try:
        network = make_backbone(recipe.backbone, dimension)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not isinstance(network, MobileBackbone):
        raise typer.BadParameter(f"{recipe.backbone} is a teacher's network, too large for a student")
    return network


def _trained_student(recipe: DistillationRecipe, state: dict[str, torch.Tensor]) -> MobileBackbone:
    """The network of a checkpoint: one that started from a teacher has no BatchNorm left."""
    student = _fresh_student(recipe, len(state["fc.bias"]))
    if "fc_bn.running_mean" not in state:
        student = fold_batch_norms(student)
    student.load_state_dict(state)
    return student


@app.command()
def distil(
    recipe: _ExistingFile,
    run: Annotated[Path, typer.Option(help="Folder of checkpoint and log; an interrupted run goes on.")],
    bank: Annotated[Path | None, typer.Option(help="Folder made by `label`: stored views.")] = None,
    faces: Annotated[
        list[Path] | None, typer.Option(help="Folders made by `prepare`: fresh views, which the teacher labels.")
    ] = None,
    identities: Annotated[
        list[Path] | None, typer.Option(help="Those of `faces` whose pictures lie in a sub-folder for each person.")
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help=".npz of the teacher, for fresh views and for its stages.")
    ] = None,
    teacher_layers: Annotated[Path | None, typer.Option(help="Layer list of the teacher.")] = None,
    described_teacher: Annotated[
        Path | None,
        typer.Option("--teacher", exists=True, dir_okay=False, help="TOML that describes the teacher, instead."),
    ] = None,
    init_from_teacher: Annotated[Path | None, typer.Option(help=".npz whose blocks the student starts from.")] = None,
    init_from_run: Annotated[Path | None, typer.Option(help="Finished run whose student is trained on.")] = None,
    init_from_export: Annotated[Path | None, typer.Option(help="Exported student that is trained on.")] = None,
) -> None:
    """Distil a student, on a GPU where there is one; `torchrun` shares the work among several."""
    settings = DistillationRecipe.from_toml(recipe)
    weights = init_from_teacher or teacher_weights
    if weights is not None and teacher_layers is None:
        raise typer.BadParameter("a teacher's .npz needs --teacher-layers")
    network = load_layer_list(weights, teacher_layers) if weights is not None and teacher_layers is not None else None
    teacher = network if described_teacher is None else _described(described_teacher).backbone()
    aligned = [AlignedFaces.load(folder) for folder in faces or []]
    device = best_device()
    with joined(device):
        lessons: Lessons
        if bank is not None:
            views = ViewBank(bank)
            lessons, dimension = StoredLessons(views, settings, device, teacher), views.labels.shape[1]
        elif aligned and teacher is not None:
            named = [folder in (identities or []) for folder in faces or []]
            lessons = FreshLessons(aligned, copy.deepcopy(teacher), settings, device, named)
            dimension = teacher.dimension
        else:
            raise typer.BadParameter("give --bank, or --faces with a teacher")
        if init_from_run is not None:
            student: MobileBackbone = _trained_student(settings, trained_weights(init_from_run / "checkpoint.pt")[0])
        elif init_from_export is not None:
            student = _shrunk(load_exported(init_from_export), settings, aligned)
        elif init_from_teacher is not None and network is not None:
            student = _shrunk(network, settings, aligned)
        else:
            torch.manual_seed(settings.seed)
            student = _fresh_student(settings, dimension)
        if settings.eight_bits:
            set_slope_factor(student, 0.0)
            try:
                prepare_for_integers(student, next(iter(lessons.held_out())).pixels.cpu())
            except UnfitNetworkError as error:
                raise typer.BadParameter(str(error)) from error
        trainer = Trainer(student, lessons, settings, run, device)
        if trainer.resume() and Peers.here().leads:
            _console.print(f"resuming at step {trainer.step} of {trainer.total_steps}")
        trainer.train()
        if Peers.here().leads:
            _console.print(f"cosine to the teacher on held-out views: {trainer.held_out_cosine():.4f}")


@app.command()
def compare(
    comparison: _ExistingFile,
    out: _Folder,
    faces: Annotated[list[Path], typer.Option(help="Folders made by `prepare`.")],
    teacher_weights: _ExistingFile,
    teacher_layers: _ExistingFile,
    identities: Annotated[
        list[Path] | None, typer.Option(help="Those of `faces` whose pictures lie in a sub-folder for each person.")
    ] = None,
    variants: Annotated[list[str] | None, typer.Option("--variant", help="Only these; all by default.")] = None,
) -> None:
    """Train the same student under several recipes; runs that have ended are not repeated."""
    settings = Comparison.from_toml(comparison)
    strangers = set(variants or []) - set(settings.variants)
    if strangers:
        raise typer.BadParameter(f"{comparison} has no variant {strangers.pop()}")
    teacher = load_layer_list(teacher_weights, teacher_layers)
    aligned = {folder.name: AlignedFaces.load(folder) for folder in faces}
    names = variants or list(settings.variants)
    start = _shrunk(copy.deepcopy(teacher), settings.recipe_of(names[0], 0), list(aligned.values()))
    named = {folder.name for folder in identities or []}
    for variant, seed, cosine in run_comparison(settings, names, aligned, named, teacher, start, out, best_device()):
        _console.print(f"{variant} {seed}: cosine to the teacher on held-out faces {cosine:.4f}")


@app.command()
def export(
    recipe: _ExistingFile,
    run: Annotated[Path, typer.Option(exists=True, file_okay=False)],
    impostor_faces: Annotated[Path, typer.Option(help="Prepared faces in Name/ folders, of nobody in a test set.")],
    description: Annotated[
        Path, typer.Option(exists=True, help="JSON with teacher, data, licence and training notes.")
    ],
    out: Annotated[Path, typer.Option()] = _MODELS / "student.onnx",
) -> None:
    """Write the student as ONNX with manifest and model card."""
    settings = DistillationRecipe.from_toml(recipe)
    weights, steps = trained_weights(run / "checkpoint.pt")
    student = _trained_student(settings, weights)
    set_slope_factor(student, 1.0 if settings.anneal_until is None else 0.0)
    parity = export_onnx(student, out)
    impostors, mates = scores_of(out, impostor_faces)
    about = json.loads(description.read_text())
    training = {
        **settings.model_dump(mode="json", exclude={"name"}),
        "steps": steps,
        "views_seen": steps * settings.batch,
        "parity_cosine": round(parity, 7),
        **about.get("training", {}),
    }
    manifest = write_manifest(
        out,
        name=settings.name,
        student=student,
        teacher=about["teacher"],
        data=about["data"],
        licence=about["licence"],
        training=training,
        impostors=impostors,
        mates=mates,
    )
    write_card(out.parent)
    _console.print(f"{out}: {manifest.size_bytes / 1e6:.2f} MB, {manifest.space_id}, parity {parity:.7f}")


@app.command()
def summary(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(BACKBONES)}; all by default.")] = None,
) -> None:
    """Parameters, multiplications a face and stages of networks."""
    table = Table("network", "dimension", "parameters", "published, M", "multiplications, M", "stages")
    for name in names or BACKBONES:
        try:
            network = make_backbone(name)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        published = BACKBONES[name].published
        table.add_row(
            name,
            str(network.dimension),
            f"{parameters(network):,}",
            "-" if published is None else f"{published:g}",
            f"{multiply_adds(network) / 1e6:,.0f}",
            ", ".join(f"{stage.name} {stage.channels} /{stage.stride}" for stage in network.feature_stages()),
        )
    _console.print(table)
