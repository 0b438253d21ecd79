"""The gallery benchmark's own arithmetic: what it draws, what it counts as right, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_training.protocols.density import EmbeddingModel, fitted, root
from tests.load.drawing import DATA, Modelled, Rows, source
from tests.load.measuring import Job, disturbed, measure, prepare
from tests.load.records import append, estimated_build_s, read
from tests.load.rendering import tables
from tests.load.structures import STRUCTURES
from tests.load.truth import agreement, find


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("dimension", [128, 512])
def test_rows_are_unit_and_the_same_however_they_are_asked_for(data: str, dimension: int) -> None:
    rows = Rows(source(data, dimension), 40_000)
    numbers = np.array([39_999, 0, 33_000, 8_191, 8_192])
    found = rows.at(numbers)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    everything = np.concatenate([chunk for _, chunk in rows.chunks()])
    assert everything.shape == (40_000, dimension)
    np.testing.assert_allclose(everything[numbers], found, atol=1e-6)
    np.testing.assert_array_equal(rows.sample(10), everything[:10])


def test_isotropic_probes_are_at_the_cosine() -> None:
    truth = find(Rows(source("isotropic", 512), 2_000), 50)
    np.testing.assert_allclose(truth.similarity, 0.5, atol=1e-5)


def test_modelled_probes_belong_to_enrolled_persons() -> None:
    rows = Rows(source("modelled", 512), 4_000)
    everything = np.concatenate([chunk for _, chunk in rows.chunks()])
    truth = find(rows, 200)
    persons = truth.nearest // Modelled.faces_a_person
    mates = everything.reshape(-1, Modelled.faces_a_person, 512)[persons]
    # All faces of the person found are near, which faces of others are not.
    assert np.einsum("nfd,nd->nf", mates, truth.probes).mean() > 0.4


def test_a_fit_recovers_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    model = EmbeddingModel(
        np.full(6, 0.1, dtype=np.float32),
        np.diag(np.arange(1, 7)).astype(np.float32),
        np.diag([3, 1, 1, 1, 0.5, 0.5]).astype(np.float32),
        np.float32(0),
    )
    labels = np.repeat(np.arange(4_000), 5)
    persons = rng.standard_normal((4_000, 6)) @ root(model.between)
    faces = model.mean + persons[labels] + rng.standard_normal((20_000, 6)) @ root(model.within)
    found = fitted(faces.astype(np.float32), labels)
    np.testing.assert_allclose(found.between, model.between, atol=0.35)
    np.testing.assert_allclose(found.within, model.within, atol=0.15)
    assert found.unevenness < 0.2


def test_a_stretched_model_keeps_its_sums() -> None:
    model = EmbeddingModel.load(Path(source.__code__.co_filename).with_name("embedding_model.npz"))
    wide = model.stretched(512)
    assert wide.dimension == 512
    assert np.trace(wide.between) == pytest.approx(np.trace(model.between), rel=1e-4)
    assert np.linalg.norm(wide.mean) == pytest.approx(np.linalg.norm(model.mean), rel=1e-4)
    with pytest.raises(ValueError, match="multiples"):
        model.stretched(200)


def test_ties_count_and_worse_rows_do_not() -> None:
    class Twins:
        described, dimension = "every face twice", 8

        def faces(self, seed: tuple[int, ...], count: int) -> np.ndarray:
            return np.repeat(np.eye(8, dtype=np.float32), 2, axis=0)[:count]

        def probes(self, seed: tuple[int, ...], faces: np.ndarray, targets: np.ndarray) -> np.ndarray:
            return faces[targets]

    rows = Rows(Twins(), 16)
    truth = find(rows, 20)
    ones = np.ones(20, dtype=np.float32)
    assert agreement(rows, truth, truth.nearest, ones).share == 1
    assert agreement(rows, truth, truth.nearest ^ 1, ones).share == 1
    other = agreement(rows, truth, (truth.nearest + 2) % 16, ones)
    assert (other.share, other.score_error) == (0, 1)
    assert agreement(rows, truth, np.full(20, -1), ones).share == 0


def ok(job: Job, build_s: float, build_busy: float = 1.0) -> dict[str, object]:
    return {**job._asdict(), "status": "ok", "build_s": build_s, "build_busy": build_busy, "single_busy": 1.0}


def test_records_survive_a_line_cut_off_and_the_last_one_counts(tmp_path: Path) -> None:
    job, out = Job("usearch", "isotropic", 128, 10_000), tmp_path / "deeper" / "records.jsonl"
    append(out, ok(job, 5.0))
    with out.open("a") as unfinished:
        unfinished.write('{"structure": "use')
    append(out, ok(job, 6.0))
    assert [record["build_s"] for record in read(out)] == [6.0]


def test_a_build_that_was_held_up_is_flagged_and_estimates_nothing() -> None:
    job = Job("usearch", "isotropic", 128, 100_000)
    larger = job._replace(size=1_000_000)
    held_up = ok(job, 218.0, build_busy=0.04)
    assert disturbed(held_up) == ["build"]
    assert disturbed(ok(job, 8.0)) == []
    assert estimated_build_s([held_up], larger) is None
    assert estimated_build_s([ok(job, 10.0)], larger) == pytest.approx(120.0)
    assert estimated_build_s([ok(job, 10.0)], larger._replace(dimension=512)) is None


@pytest.mark.parametrize("name", ["ours", "faiss-flat", "pq-half"])
def test_a_measurement_from_drawing_to_table(name: str, tmp_path: Path) -> None:
    job = Job(name, "isotropic", 128, 2_000, probes=100, tuning_probes=100, seconds=0.1)
    prepare(job, tmp_path)
    record = {**measure(job, tmp_path), "machine": {"processor": "a", "memory_gib": 1, "python": "3"}}
    assert record["status"] == "ok"
    assert record["agreement"] >= 0.99
    assert record["build_s"] > 0
    assert record["score_error"] < 1e-6
    missing = {**job._replace(structure="usearch")._asdict(), "status": "not installed", "machine": record["machine"]}
    text = tables([record, missing])
    assert STRUCTURES[name].title in text
    assert "| usearch | not installed |" in text
