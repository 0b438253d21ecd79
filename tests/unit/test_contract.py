"""The alignment, the normalisation, and the manifest that names the space they make."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service import contract
from service.contract import (
    TEMPLATE,
    ContractError,
    ImpostorScores,
    ImpostorTail,
    ModelManifest,
    Preprocessing,
    align,
    alignment_transform,
    normalise_embeddings,
    read_manifest,
    sha256_of_file,
    space_id,
    to_network_input,
)

DIGEST = "ab" * 32


def similarity(scale, degrees, shift):
    """(2, 3): turn, magnify, move."""
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([turn, np.array(shift, dtype=float)[:, None]])


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth_at(x, y, wavelength):
    """A coloured pattern without sharp edges, (..., 3) float, at any real coordinates."""
    waves = [np.sin(2 * np.pi * (x * c + y * s) / wavelength) for c, s in ((1.0, 0.2), (0.1, 1.0), (0.7, -0.7))]
    return 128 + 60 * np.stack(waves, axis=-1)


def smooth_picture(width, height, wavelength):
    y, x = np.mgrid[:height, :width].astype(float)
    return np.round(smooth_at(x, y, wavelength)).astype(np.uint8)


class TestAlignmentTransform:
    def test_the_template_onto_itself_is_the_identity(self):
        np.testing.assert_allclose(alignment_transform(TEMPLATE), [[1, 0, 0], [0, 1, 0]], atol=1e-6)

    @given(
        scale=st.floats(0.05, 20),
        degrees=st.floats(-180, 180),
        x=st.floats(-2000, 2000),
        y=st.floats(-2000, 2000),
    )
    def test_a_known_similarity_is_undone(self, scale, degrees, x, y):
        landmarks = apply(similarity(scale, degrees, (x, y)), TEMPLATE.astype(float))
        back = apply(alignment_transform(landmarks), landmarks)
        np.testing.assert_allclose(back, TEMPLATE, atol=1e-3)

    def test_noisy_points_are_fitted_as_by_linear_least_squares(self):
        landmarks = apply(similarity(2.5, 20, (40, -7)), TEMPLATE.astype(float))
        landmarks += np.random.default_rng(3).normal(0, 4, (5, 2))
        # x' = a x - b y + c and y' = b x + a y + d, as ten equations in four unknowns.
        x, y = landmarks.T
        zero, one = np.zeros(5), np.ones(5)
        equations = np.vstack([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
        a, b, c, d = np.linalg.lstsq(equations, TEMPLATE.T.reshape(-1).astype(float), rcond=None)[0]
        np.testing.assert_allclose(alignment_transform(landmarks), [[a, -b, c], [b, a, d]], rtol=1e-9, atol=1e-9)

    def test_mirrored_points_are_never_reflected_back(self):
        matrix = alignment_transform(TEMPLATE * np.array([-1, 1]))
        assert np.linalg.det(matrix[:, :2]) > 0

    @pytest.mark.parametrize(
        "landmarks",
        [
            np.full((5, 2), 30.0),
            TEMPLATE[:4],
            TEMPLATE.reshape(-1),
            np.where(np.arange(10).reshape(5, 2) == 3, np.nan, TEMPLATE),
            np.where(np.arange(10).reshape(5, 2) == 9, np.inf, TEMPLATE),
            np.zeros((0, 2)),
        ],
        ids=["one place", "four points", "flat", "nan", "infinite", "none"],
    )
    def test_degenerate_landmarks_are_refused(self, landmarks):
        with pytest.raises(ContractError):
            alignment_transform(landmarks)

    def test_points_that_no_turn_brings_nearer_to_the_template_are_refused(self):
        target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1].astype(float)
        target -= target.mean()
        other = np.array([3, -1, 4, -1, -5]) + 1j * np.array([2, 6, -5, 3, -6])
        other = other - other.mean()
        other -= target * np.vdot(target, other) / np.vdot(target, target)
        with pytest.raises(ContractError, match="orientation"):
            alignment_transform(np.stack([other.real, other.imag], axis=1))


class TestAlign:
    def test_a_picture_that_is_the_crop_comes_back_unchanged(self):
        picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        crop = align(picture, TEMPLATE)
        # The transform is the identity to within 1e-6 of a pixel, so rounding may move a value by one.
        assert np.abs(crop.astype(int) - picture).max() <= 1

    @pytest.mark.parametrize(("scale", "degrees"), [(0.6, 0), (1.0, 25), (1.9, -15), (2.5, 0), (5.0, 10), (8.3, -40)])
    def test_every_crop_pixel_shows_its_place_in_the_picture(self, scale, degrees):
        """Against the pattern's formula; from a magnification of 2 on this is the averaging path."""
        to_picture = similarity(scale, degrees, (0, 0))
        to_picture[:, 2] = 800 - apply(to_picture, np.array([56.0, 56.0]))
        picture = smooth_picture(1600, 1600, wavelength=47 * scale)
        crop = align(picture, apply(to_picture, TEMPLATE.astype(float)).astype(np.float32))
        v, u = np.mgrid[:112, :112].astype(float)
        at = apply(to_picture, np.stack([u, v], axis=-1))
        expected = smooth_at(at[..., 0], at[..., 1], wavelength=47 * scale)
        # The pattern changes by up to 8 grey levels a crop pixel: an offset of a quarter of one would show.
        assert np.abs(crop - expected).mean() < 0.7
        assert np.abs(crop - expected).max() < 4

    def test_a_shrunk_picture_gives_nearly_the_same_crop(self):
        landmarks = apply(similarity(4.0, 8, (150, 120)), TEMPLATE.astype(float))
        full = smooth_picture(1000, 900, wavelength=200)
        half = full.reshape(450, 2, 500, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
        # A pixel's centre is half a pixel in from its corner, at both sizes.
        crops = [align(full, landmarks), align(half, (landmarks + 0.5) / 2 - 0.5)]
        difference = np.abs(crops[0].astype(float) - crops[1])
        assert difference.mean() < 0.7
        assert difference.max() < 4

    def test_fine_texture_is_averaged_rather_than_sampled(self):
        board = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
        landmarks = apply(similarity(7.3, 0, (20, 20)), TEMPLATE.astype(float)).astype(np.float32)
        crop = align(np.repeat(board[..., None], 3, axis=2), landmarks)
        assert crop.std() < 12
        assert abs(crop.mean() - 127.5) < 2

    def test_what_lies_outside_the_picture_is_black(self):
        picture = np.full((112, 112, 3), 200, dtype=np.uint8)
        crop = align(picture, TEMPLATE - np.float32([40, 0]))
        assert (crop[:, :39] == 0).all()
        assert (crop[:, 41:] == 200).all()

    def test_a_face_wholly_outside_a_big_picture_is_a_black_crop(self):
        far = apply(similarity(6, 0, (5000, 5000)), TEMPLATE.astype(float))
        assert align(np.full((300, 300, 3), 200, dtype=np.uint8), far).max() == 0


class TestNetworkInput:
    def test_bgr_bytes_become_centred_planar_rgb(self):
        crops = np.zeros((2, 112, 112, 3), dtype=np.uint8)
        crops[1, 5, 7] = (10, 20, 30)
        tensor = to_network_input(crops, Preprocessing())
        assert tensor.shape == (2, 3, 112, 112)
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous
        # (30 - 127.5) / 128, (20 - 127.5) / 128, (10 - 127.5) / 128
        np.testing.assert_array_equal(tensor[1, :, 5, 7], np.float32([-0.76171875, -0.83984375, -0.91796875]))
        assert tensor[0, 0, 0, 0] == np.float32(-127.5 / 128)

    def test_the_preprocessing_decides_the_range(self):
        crops = np.full((1, 112, 112, 3), 77, dtype=np.uint8)
        assert (to_network_input(crops, Preprocessing(mean=0.0, scale=1.0)) == 77.0).all()

    def test_the_crops_stay_as_they_are(self):
        crops = np.full((1, 112, 112, 3), 77, dtype=np.uint8)
        to_network_input(crops, Preprocessing())
        assert (crops == 77).all()

    @pytest.mark.parametrize(
        "crops",
        [
            np.zeros((112, 112, 3), np.uint8),
            np.zeros((1, 112, 111, 3), np.uint8),
            np.zeros((1, 3, 112, 112), np.uint8),
            np.zeros((1, 112, 112, 4), np.uint8),
            np.zeros((1, 112, 112, 3), np.float32),
        ],
        ids=["no batch", "wrong side", "planar", "alpha", "float"],
    )
    def test_anything_else_is_refused(self, crops):
        with pytest.raises(ContractError):
            to_network_input(crops, Preprocessing())


class TestNormaliseEmbeddings:
    def test_rows_become_unit_length(self):
        unit = normalise_embeddings(np.array([[3.0, 4.0], [0.0, -2.0]], dtype=np.float32))
        np.testing.assert_allclose(unit, [[0.6, 0.8], [0.0, -1.0]], atol=1e-7)
        assert unit.dtype == np.float32

    def test_huge_rows_do_not_overflow(self):
        np.testing.assert_allclose(normalise_embeddings(np.full((1, 4), 1e30, np.float32)), [[0.5] * 4], atol=1e-6)

    @pytest.mark.parametrize("bad", [0.0, np.nan, np.inf], ids=["zero", "nan", "infinite"])
    def test_a_row_without_direction_is_refused(self, bad):
        with pytest.raises(ContractError):
            normalise_embeddings(np.array([[1.0, 0.0], [bad, bad]], dtype=np.float32))


class TestSpaceId:
    def test_the_name_of_a_space_never_changes(self):
        """Galleries on disk carry it: whoever changes this value orphans them all."""
        assert space_id(DIGEST, Preprocessing(), 128) == "sf1-04fb68d0ebcc9e55"

    def test_every_ingredient_changes_it(self, monkeypatch):
        ids = [
            space_id(DIGEST, Preprocessing(), 128),
            space_id("cd" * 32, Preprocessing(), 128),
            space_id(DIGEST, Preprocessing(mean=0.0), 128),
            space_id(DIGEST, Preprocessing(scale=1 / 127.5), 128),
            space_id(DIGEST, Preprocessing(), 256),
        ]
        monkeypatch.setattr(contract, "TEMPLATE", TEMPLATE + np.float32(0.25))
        ids.append(space_id(DIGEST, Preprocessing(), 128))
        assert len(set(ids)) == len(ids)


def manifest_of(**changes):
    preprocessing = Preprocessing()
    fields = {
        "name": "tiny",
        "role": "embedder",
        "file": "student.onnx",
        "sha256": DIGEST,
        "size_bytes": 10,
        "parameters": 3,
        "licence": "Apache-2.0",
        "teacher": "none",
        "data": ["nothing"],
        "preprocessing": preprocessing,
        "dimension": 128,
        "space_id": space_id(changes.get("sha256", DIGEST), preprocessing, 128),
        "impostor_scores": ImpostorScores(mean=0.0, std=0.1, comparisons=5, source="a test"),
    }
    return ModelManifest(**{**fields, **changes})


NO_SPACE = {"preprocessing": None, "dimension": None, "space_id": None, "impostor_scores": None}


class TestManifest:
    def test_an_embedder_that_names_its_space_is_accepted(self):
        assert manifest_of().dimension == 128

    def test_a_detector_has_no_space(self):
        detector = manifest_of(role="detector", **NO_SPACE)
        assert detector.space_id is None
        again = ModelManifest.model_validate_json(detector.model_dump_json(exclude_none=True))
        assert again == detector

    @pytest.mark.parametrize("field", sorted(NO_SPACE))
    def test_a_detector_with_any_part_of_a_space_is_refused(self, field):
        value = getattr(manifest_of(), field)
        with pytest.raises(ValidationError, match="detector has no embedding space"):
            manifest_of(role="detector", **{**NO_SPACE, field: value})

    @pytest.mark.parametrize(
        "changes",
        [
            {"space_id": "sf1-0123456789abcdef"},
            {"space_id": None},
            {"dimension": 64},
            {"dimension": None},
            {"preprocessing": None},
            {"preprocessing": Preprocessing(mean=0.0)},
            {"file": "../student.onnx"},
            {"file": "student.bin"},
            {"sha256": "xyz"},
            {"size_bytes": 0},
            {"role": "oracle"},
            {"surprise": 1},
        ],
        ids=lambda changes: "-".join(f"{key}={value}" for key, value in changes.items())[:40],
    )
    def test_what_does_not_fit_together_is_refused(self, changes):
        with pytest.raises(ValidationError):
            manifest_of(**changes)

    @pytest.mark.parametrize("scores", [{"std": 0.0}, {"mean": 1.5}, {"comparisons": 0}])
    def test_impossible_impostor_scores_are_refused(self, scores):
        with pytest.raises(ValidationError):
            ImpostorScores(**{"mean": 0.0, "std": 0.1, "comparisons": 5, "source": "a test", **scores})

    TAIL = ImpostorTail(start=0.3, rate=1e-3, shape=0.0, scale=0.04, exceedances=100, deviation=0.02)

    @pytest.mark.parametrize(
        "parts",
        [
            {"body": ((0.1, 0.2),)},
            {"tail": TAIL},
            {"body": ((0.1, 0.2), (0.05, 0.1)), "tail": TAIL},
            {"body": ((0.1, 0.1), (0.2, 0.1)), "tail": TAIL},
            {"body": ((0.3, 0.1),), "tail": TAIL},
            {"body": ((0.1, 1e-4),), "tail": TAIL},
            {"body": ((0.1, 1.0),), "tail": TAIL},
        ],
        ids=["no tail", "no body", "descending", "level", "body in tail", "rarer than the tail", "always"],
    )
    def test_a_curve_that_does_not_fall_is_refused(self, parts):
        with pytest.raises(ValidationError):
            ImpostorScores(mean=0.0, std=0.1, comparisons=5, source="a test", **parts)


class TestReadManifest:
    @pytest.fixture
    def model(self, tmp_path):
        path = tmp_path / "student.onnx"
        path.write_bytes(b"weights")
        path.with_suffix(".json").write_text(manifest_of(sha256=sha256_of_file(path)).model_dump_json())
        return path

    def test_a_model_with_its_own_manifest_is_read(self, model):
        # sha256 of b"weights", by sha256sum
        assert read_manifest(model).sha256 == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"

    def test_a_tampered_file_is_refused(self, model):
        model.write_bytes(b"weightz")
        with pytest.raises(ContractError, match="SHA-256"):
            read_manifest(model)

    def test_a_tampered_manifest_is_refused(self, model):
        path = model.with_suffix(".json")
        fields = json.loads(path.read_text())
        fields["preprocessing"]["mean"] = 0.0
        path.write_text(json.dumps(fields))
        with pytest.raises(ContractError, match="not valid"):
            read_manifest(model)

    def test_a_manifest_of_another_file_is_refused(self, model):
        renamed = model.rename(model.with_name("other.onnx"))
        model.with_suffix(".json").rename(renamed.with_suffix(".json"))
        with pytest.raises(ContractError, match="describes"):
            read_manifest(renamed)

    def test_a_missing_manifest_is_named(self, model):
        model.with_suffix(".json").unlink()
        with pytest.raises(ContractError, match="no manifest"):
            read_manifest(model)

    def test_a_missing_model_is_named(self, model):
        model.unlink()
        with pytest.raises(ContractError, match="no model"):
            read_manifest(model)

    def test_a_manifest_that_is_no_json_is_refused(self, model):
        model.with_suffix(".json").write_bytes(b"\xff\x00")
        with pytest.raises(ContractError, match="not valid"):
            read_manifest(model)
