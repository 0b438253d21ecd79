"""A second embedder of the same accuracy in another space: the shipped student, its embeddings rotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from service.contract import read_manifest, sha256_of_file, space_id
from service.settings import Settings


def second_model(folder: Path, *, seed: int = 1) -> Path:
    """Write the model and its manifest; cosines within its space are those of the student's."""
    shipped = Settings(_env_file=None).embedder_path
    manifest = read_manifest(shipped)
    assert manifest.dimension is not None and manifest.preprocessing is not None
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(manifest.dimension, manifest.dimension)))
    model = onnx.load(shipped)
    (output,) = model.graph.output
    inner = f"{output.name}_before_rotation"
    for node in model.graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
        node.input[:] = [inner if name == output.name else name for name in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(rotation.astype(np.float32), "rotation"))
    model.graph.node.append(onnx.helper.make_node("MatMul", [inner, "rotation"], [output.name]))
    path = folder / f"rotated-{seed}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    digest = sha256_of_file(path)
    changed = manifest.model_copy(
        update={
            "name": f"rotated-{seed}",
            "file": path.name,
            "sha256": digest,
            "size_bytes": path.stat().st_size,
            "space_id": space_id(digest, manifest.preprocessing, manifest.dimension),
        }
    )
    path.with_suffix(".json").write_text(changed.model_dump_json())
    return path
