"""An embedding network of others as the service loads it: the same function, faster, with a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from model_training.shipping.export import ParityError
from service.contract import (
    CROP_SIDE_PX,
    ContractError,
    ImpostorScores,
    MateScores,
    ModelManifest,
    Preprocessing,
    normalise_embeddings,
    sha256_of_file,
    space_id,
    to_network_input,
)
from service.vision.runtime import onnxruntime

_COMPARED = 8
_LEAST_COSINE = 0.99999


def adopt(network: Path, preprocessing: Preprocessing, out: Path) -> tuple[int, float]:
    """Write a network with its PReLUs in parts that onnxruntime runs faster on CPUs.

    `PReLU(x)` with slopes a, one a channel, is `a x + (1 - a) max(x, 0)`: two depthwise convolutions of a single pixel,
    which stay in the blocked layout of the convolutions around them and take the sum along, where onnxruntime's own
    PReLU goes back to the plain layout and through single values.

    Args:
        network: ONNX, one input (n, 3, 112, 112), one output (n, d).
        preprocessing: how it wants its pixels.
        out: where it goes.

    Returns:
        d, and the least cosine between both networks' embeddings of random crops.

    Raises:
        ContractError: it is no such network.
        ParityError: the cosine is below 0.99999; nothing is left at `out`.
    """
    expected = _embeddings(network, preprocessing)
    model = onnx.load(str(network))
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        slopes = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slopes is None or slopes.ndim < 3 or slopes.size != slopes.shape[-3]:
            nodes.append(node)
            continue
        for part in _parts(node, slopes.reshape(-1).astype(np.float32)):
            if isinstance(part, NodeProto):
                nodes.append(part)
            else:
                model.graph.initializer.append(part)
    del model.graph.node[:]
    read = {name for node in nodes for name in node.input}
    model.graph.node.extend(node for node in nodes if node.op_type != "Constant" or node.output[0] in read)
    kept = [each for each in model.graph.initializer if each.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, str(out))
    cosine = float((expected * _embeddings(out, preprocessing)).sum(axis=1).min())
    if cosine < _LEAST_COSINE:
        out.unlink()
        raise ParityError(f"cosine between the network and what was made of it is only {cosine:.6f}")
    return expected.shape[1], cosine


def describe_adopted(
    out: Path,
    preprocessing: Preprocessing,
    dimension: int,
    *,
    name: str,
    licence: str,
    origin: str,
    impostors: ImpostorScores,
    mates: MateScores | None,
) -> ModelManifest:
    """Write the manifest of an adopted network beside it.

    Args:
        origin: where it comes from, and what it was trained on as far as that is known.
    """
    digest = sha256_of_file(out)
    weights = [numpy_helper.to_array(each) for each in onnx.load(str(out)).graph.initializer]
    manifest = ModelManifest(
        name=name,
        role="embedder",
        file=out.name,
        sha256=digest,
        size_bytes=out.stat().st_size,
        parameters=sum(each.size for each in weights if each.dtype.kind == "f"),
        licence=licence,
        teacher="none",
        data=[origin],
        preprocessing=preprocessing,
        dimension=dimension,
        space_id=space_id(digest, preprocessing, dimension),
        impostor_scores=impostors,
        mate_scores=mates,
    )
    out.with_suffix(".json").write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n")
    return manifest


def _parts(node: NodeProto, slopes: NDArray[np.float32]) -> Iterator[NodeProto | onnx.TensorProto]:
    """Nodes and weights that stand for a PReLU."""
    source, target = node.input[0], node.output[0]
    yield helper.make_node("Relu", [source], [f"{target}.positive"])
    for which, read, scales in (("rest", f"{target}.positive", 1 - slopes), ("whole", source, slopes)):
        name = f"{target}.{which}"
        yield numpy_helper.from_array(scales.reshape(-1, 1, 1, 1), f"{name}.scales")
        yield helper.make_node(
            "Conv", [read, f"{name}.scales"], [name], name=name, group=len(slopes), kernel_shape=[1, 1]
        )
    yield helper.make_node("Add", [f"{target}.rest", f"{target}.whole"], [target])


def _embeddings(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    crops = np.random.default_rng(0).integers(0, 256, (_COMPARED, CROP_SIDE_PX, CROP_SIDE_PX, 3), dtype=np.uint8)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        (found,) = session.run(None, {source.name: to_network_input(crops, preprocessing)})
    except Exception as error:
        # onnxruntime's own exceptions have no common class that it shows.
        raise ContractError(f"{path} is no network from (n, 3, 112, 112) to one embedding a face") from error
    if found.ndim != 2 or len(found) != _COMPARED:
        raise ContractError(f"{path} gives {found.shape} for {_COMPARED} faces, not an embedding each")
    return normalise_embeddings(found)
