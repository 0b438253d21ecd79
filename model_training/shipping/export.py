"""A trained student to what is shipped: ONNX, parity gate, manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_training.backbones.units import MobileBackbone, fold_batch_norms
from model_training.data.faces import AlignedFaces
from service.contract import (
    CROP_SIDE_PX,
    ImpostorScores,
    MateScores,
    ModelManifest,
    Preprocessing,
    normalise_embeddings,
    read_manifest,
    sha256_of_file,
    space_id,
    to_network_input,
)
from service.vision.runtime import onnxruntime

_OPSET = 18
_MIN_PARITY_COSINE = 0.99999


class ParityError(RuntimeError):
    """The exported network does not compute what the trained one does."""


def export_onnx(student: MobileBackbone, path: Path) -> float:
    """Write the student as ONNX and hold it against PyTorch.

    Returns:
        The least cosine between both runtimes over random crops.

    Raises:
        ParityError: it is below 0.99999.
    """
    network = fold_batch_norms(student.eval()).to(memory_format=torch.contiguous_format).float()
    write_onnx(network, torch.zeros(2, 3, CROP_SIDE_PX, CROP_SIDE_PX), "embedding", path)
    parity = _parity(network, path)
    if parity < _MIN_PARITY_COSINE:
        path.unlink()
        raise ParityError(f"cosine between PyTorch and onnxruntime is only {parity:.6f}")
    return parity


def write_onnx(network: nn.Module, example: Tensor, output: str, path: Path) -> None:
    """Write a network with one `input`, whose first dimension is free, and one output, without traces of this machine.

    Args:
        network: in eval mode, on the CPU.
        example: (n, ...) of what it reads; n is at least 2.
        output: its name.
        path: where it goes.
    """
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["input"],
        output_names=[output],
        dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    # Names of source lines and paths of the machine that exported would travel with every copy.
    model = onnx.load(str(path))
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    onnx.save(model, str(path))


def _parity(network: MobileBackbone, path: Path) -> float:
    crops = np.random.default_rng(0).integers(0, 256, (16, CROP_SIDE_PX, CROP_SIDE_PX, 3), dtype=np.uint8)
    pixels = to_network_input(crops, Preprocessing())
    with torch.no_grad():
        expected = normalise_embeddings(network(torch.from_numpy(pixels)).numpy())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = normalise_embeddings(session.run(None, {"input": pixels})[0])
    return float((expected * got).sum(axis=1).min())


def write_manifest(
    path: Path,
    *,
    name: str,
    student: MobileBackbone,
    teacher: str,
    data: list[str],
    licence: str,
    training: dict[str, Any],
    impostors: ImpostorScores,
    mates: MateScores | None = None,
    metrics: dict[str, Any] | None = None,
) -> ModelManifest:
    """Describe an exported student in a JSON file beside it."""
    digest, preprocessing = sha256_of_file(path), Preprocessing()
    manifest = ModelManifest(
        name=name,
        role="embedder",
        file=path.name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        parameters=sum(p.numel() for p in student.parameters()),
        licence=licence,
        teacher=teacher,
        data=data,
        training=training,
        metrics=metrics or {},
        preprocessing=preprocessing,
        dimension=student.dimension,
        space_id=space_id(digest, preprocessing, student.dimension),
        impostor_scores=impostors,
        mate_scores=mates,
    )
    path.with_suffix(".json").write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n")
    return manifest


def describe_derived(model: Path, out: Path, kind: str, **changes: Any) -> ModelManifest:
    """Write the manifest of a model that was made of another: that one's, with a space of its own and no figures.

    Args:
        model: ONNX with its manifest.
        out: what was made of it.
        kind: of numbers, added to its name.
        changes: of further fields.
    """
    manifest = read_manifest(model)
    digest = sha256_of_file(out)
    assert manifest.preprocessing is not None and manifest.dimension is not None
    described = manifest.model_copy(
        update={
            "name": f"{manifest.name}-{kind}",
            "file": out.name,
            "sha256": digest,
            "size_bytes": out.stat().st_size,
            "space_id": space_id(digest, manifest.preprocessing, manifest.dimension),
            "metrics": {},
            **changes,
        }
    )
    # Checked as a reader would.
    described = ModelManifest.model_validate(described.model_dump())
    out.with_suffix(".json").write_text(described.model_dump_json(indent=2, exclude_none=True) + "\n")
    return described


def record_metrics(model_path: Path, metrics: dict[str, Any]) -> ModelManifest:
    """Add measured figures to a model's manifest; the weights and their space stay what they are."""
    manifest = ModelManifest.model_validate_json(model_path.with_suffix(".json").read_bytes())
    return _updated(model_path, manifest, metrics={**manifest.metrics, **metrics})


def record_scores(model_path: Path, impostors: ImpostorScores, mates: MateScores | None) -> ModelManifest:
    """Replace what a model's manifest says of its scores."""
    manifest = ModelManifest.model_validate_json(model_path.with_suffix(".json").read_bytes())
    return _updated(model_path, manifest, impostor_scores=impostors, mate_scores=mates)


def _updated(model_path: Path, manifest: ModelManifest, **changes: object) -> ModelManifest:
    updated = manifest.model_copy(update=changes)
    model_path.with_suffix(".json").write_text(updated.model_dump_json(indent=2, exclude_none=True) + "\n")
    return updated


def embed_faces(
    path: Path, faces: AlignedFaces, batch: int = 64, preprocessing: Preprocessing | None = None
) -> NDArray[np.float32]:
    """(n, d) unit embeddings of prepared faces by an exported student, or one that wants its pixels another way."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, wanted = session.get_inputs()[0].name, preprocessing or Preprocessing()
    parts = [
        session.run(None, {name: to_network_input(np.asarray(faces.crops[i : i + batch]), wanted)})[0]
        for i in range(0, len(faces.crops), batch)
    ]
    return normalise_embeddings(np.concatenate(parts))
