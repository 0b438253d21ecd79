"""An attribute network in onnxruntime, and its answers as readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError
from service.domain import AttributeReading, AttributeUnavailable, ClassReading, ScoreReading, ValueReading
from service.ports import FoundFace
from service.vision.attributes import manifest as described
from service.vision.attributes.manifest import AlignedCrop, AttributeManifest
from service.vision.attributes.views import aligned_view, network_input
from service.vision.runtime import onnxruntime, session_options

Rows = NDArray[np.float64]

# Sums of probabilities are rounded in networks of 16 bits.
_PROBABILITY_TOLERANCE = 0.01


class AttributeNetwork:
    """An attribute network as a plain function of faces; safe to call from several threads at once.

    Its first run, at the start, is over grey pictures: a network that does not fit its manifest fails there.

    Args:
        model_path: ONNX file.
        manifest: that describes it, and has been checked against it.
        providers: onnxruntime execution providers, most wanted first.

    Raises:
        ContractError: the file is no network, or not one as the manifest says.
    """

    def __init__(
        self, model_path: Path, manifest: AttributeManifest, *, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        self.manifest = manifest
        self._path = model_path
        try:
            self._session = onnxruntime.InferenceSession(
                # Batches are the parallelism, and networks run beside each other.
                str(model_path),
                session_options(threads=1),
                providers=list(providers),
            )
        except Exception as error:
            # onnxruntime's own exceptions have no common class that it shows.
            raise ContractError(f"{model_path} cannot be loaded as a network") from error
        self._input, one_by_one = self._checked_input()
        self._outputs = self._checked_outputs()
        self._most_at_once: int | None = 1 if one_by_one or not self._takes_batches() else None
        self._check_answers(self._rows(self._grey(1)))

    @property
    def names(self) -> frozenset[str]:
        """The attributes that it tells."""
        return frozenset(reading.name for reading in self.manifest.readings)

    def view_of(self, face: FoundFace) -> NDArray[np.uint8]:
        """(side_px, side_px, 3) uint8 BGR: the face as the network sees it, from the views that were asked for."""
        crop = self.manifest.crop
        return aligned_view(face.crop, crop.side_px) if isinstance(crop, AlignedCrop) else face.views[crop.view]

    def read(self, views: NDArray[np.uint8]) -> list[dict[str, AttributeReading] | AttributeUnavailable]:
        """What it says of (n, side_px, side_px, 3) uint8 BGR views: readings by name, or that there is no answer."""
        rows = self._rows(views)
        return [self._readings({name: values[index] for name, values in rows.items()}) for index in range(len(views))]

    def _readings(self, row: Mapping[str, Rows]) -> dict[str, AttributeReading] | AttributeUnavailable:
        if not all(np.isfinite(values).all() for values in row.values()):
            return AttributeUnavailable(
                f"the network {self.manifest.name} gave no finite answer about a face", attributes=sorted(self.names)
            )
        return {reading.name: _meaning(reading, row[reading.name]) for reading in self.manifest.readings}

    def _rows(self, views: NDArray[np.uint8]) -> dict[str, Rows]:
        """The numbers of each reading, (n, its width) float64."""
        pixels = network_input(views, self.manifest.pixels)
        step = self._most_at_once or len(pixels)
        parts = [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {
            reading.name: answers[self._output_of(reading)][:, reading.first : reading.first + reading.width]
            for reading in self.manifest.readings
        }

    def _run(self, pixels: NDArray[np.float32]) -> dict[str, Rows]:
        """Outputs by name, each (n, numbers of a face) float64."""
        answers = self._session.run(self._outputs, {self._input: pixels})
        flat = [np.asarray(answer, dtype=np.float64).reshape(len(answer), -1) for answer in answers]
        if any(len(rows) != len(pixels) for rows in flat):
            raise ContractError(f"{self._path} does not answer once for each face")
        return dict(zip(self._outputs, flat, strict=True))

    def _output_of(self, reading: described.Reading) -> str:
        return reading.output if reading.output is not None else str(self._session.get_outputs()[0].name)

    def _grey(self, count: int) -> NDArray[np.uint8]:
        side_px = self.manifest.crop.side_px
        return np.full((count, side_px, side_px, 3), 127, dtype=np.uint8)

    def _checked_input(self) -> tuple[str, bool]:
        """The input's name, and whether it takes one face at a time."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            raise ContractError(f"{self._path} does not take one tensor of float32 pictures")
        batch, *shape = inputs[0].shape
        side_px = self.manifest.crop.side_px
        wanted = [3, side_px, side_px] if self.manifest.pixels.layout == "NCHW" else [side_px, side_px, 3]
        if any(isinstance(has, int) and has != want for has, want in zip(shape, wanted, strict=True)):
            raise ContractError(f"{self._path} takes pictures of shape {shape}, its manifest says {wanted}")
        if isinstance(batch, int) and batch != 1:
            raise ContractError(f"{self._path} takes {batch} pictures at a time, not one or any number")
        return str(inputs[0].name), batch == 1

    def _checked_outputs(self) -> list[str]:
        has = {str(output.name) for output in self._session.get_outputs()}
        wanted = dict.fromkeys(self._output_of(reading) for reading in self.manifest.readings)
        if missing := sorted(set(wanted) - has):
            raise ContractError(f"{self._path} has no output {', '.join(missing)}; it has {', '.join(sorted(has))}")
        return list(wanted)

    def _takes_batches(self) -> bool:
        """Whether it does what its input says, which exports do not always: some hold a 1 inside."""
        try:
            self._run(network_input(self._grey(2), self.manifest.pixels))
        except Exception:  # noqa: BLE001 - onnxruntime's own exceptions have no common class that it shows
            return False
        return True

    def _check_answers(self, rows: Mapping[str, Rows]) -> None:
        for reading in self.manifest.readings:
            (row,) = rows[reading.name]
            if len(row) < reading.width:
                raise ContractError(
                    f"{self._path} gives too few numbers for {reading.name}: its manifest says {reading.width} from "
                    f"{reading.first} on"
                )
            if not np.isfinite(row).all():
                raise ContractError(f"{self._path} answers a grey picture with numbers that are not finite")
            if not isinstance(reading, described.ValueReading) and reading.numbers == "probabilities":
                total = 1.0 if reading.width == 1 else row.sum()
                if row.min() < 0 or row.max() > 1 or abs(total - 1) > _PROBABILITY_TOLERANCE:
                    raise ContractError(f"what {self._path} gives for {reading.name} are no probabilities; logits?")


def _meaning(reading: described.Reading, row: Rows) -> AttributeReading:
    if isinstance(reading, described.ValueReading):
        return ValueReading(float(row[0]) * reading.factor + reading.offset, reading.unit)
    probabilities = _probabilities(row, reading.numbers == "logits")
    if isinstance(reading, described.ScoreReading):
        return ScoreReading(float(probabilities[reading.index]), reading.threshold)
    return ClassReading(dict(zip(reading.labels, probabilities.tolist(), strict=True)))


def _probabilities(row: Rows, logits: bool) -> Rows:
    if not logits:
        bounded = np.clip(row, 0.0, 1.0)
        total = bounded.sum()
        return bounded if len(row) == 1 or total == 0 else bounded / total
    if len(row) == 1:
        # The logistic function, in a form that does not overflow.
        return 0.5 * (1 + np.tanh(row / 2))
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum(), dtype=np.float64)
