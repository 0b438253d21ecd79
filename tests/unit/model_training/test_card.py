"""The model card tells what the manifests say, and the one that is shipped is up to date."""

from pathlib import Path

import pytest

import service
from model_training.shipping.card import CARD, card_text, write_card
from service.contract import ImpostorScores, ImpostorTail, MateScores, ModelManifest, Preprocessing, space_id

SHIPPED = Path(service.__file__).parent / "models"
DIGEST = "ab" * 32


@pytest.fixture
def manifest():
    return ModelManifest(
        name="tiny-student",
        role="embedder",
        file="student.onnx",
        sha256=DIGEST,
        size_bytes=1_230_000,
        parameters=4_321,
        licence="Apache-2.0",
        teacher="a teacher of eight colours",
        data=["drawings", "more drawings"],
        training={"steps": 15, "blocks": [1, 1, 0], "recipe": {"seed": 3, "shares": {"drawings": 0.8}}},
        metrics={"lfw_accuracy_percent": 98.7},
        preprocessing=Preprocessing(),
        dimension=8,
        space_id=space_id(DIGEST, Preprocessing(), 8),
        impostor_scores=ImpostorScores(
            mean=0.01,
            std=0.1,
            comparisons=10,
            source="ten drawings",
            body=((0.2, 0.1),),
            tail=ImpostorTail(start=0.3, rate=0.01, shape=-0.02, scale=0.04, exceedances=1_200, deviation=0.019),
        ),
        mate_scores=MateScores(mean=0.6, std=0.125, comparisons=1_400),
    )


def test_the_card_says_what_the_manifest_says(manifest, tmp_path):
    (tmp_path / "student.json").write_text(manifest.model_dump_json())
    text = write_card(tmp_path).read_text()
    for line in (
        "## student.onnx: tiny-student",
        "- role: embedder; 4,321 parameters, 1.23 MB",
        "- teacher: a teacher of eight colours",
        "- data: more drawings",
        "- licence: Apache-2.0",
        f"- SHA-256: `{manifest.sha256}`",
        f"- embedding space: `{manifest.space_id}`, 8 dimensions",
        "- impostor cosines: mean 0.0100, deviation 0.1000 over 10 comparisons (ten drawings)",
        "- their highest 1.0%, 1,200 beyond 0.300: generalised Pareto, shape -0.020, scale 0.0400,"
        " off by 0.019 at most (Kolmogorov-Smirnov)",
        "- mate cosines: mean 0.6000, deviation 0.1250 over 1,400 comparisons",
        "| steps | 15 |",
        "| blocks | [1, 1, 0] |",
        "| recipe / seed | 3 |",
        "| recipe / shares / drawings | 0.8 |",
        "| lfw_accuracy_percent | 98.7 |",
    ):
        assert line in text.splitlines()


def test_the_shipped_card_is_that_of_the_shipped_manifests():
    assert (SHIPPED / CARD).read_text() == card_text(SHIPPED), "run `python -m model_training card`"
