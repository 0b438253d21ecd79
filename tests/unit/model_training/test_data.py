"""Prepared faces, the bank of labelled views, and who must not be in it."""

import json
from pathlib import Path

import numpy as np
import pytest

from model_training.data.bank import NOBODY, ViewBank, label_views
from model_training.data.faces import AlignedFaces, DataError
from model_training.data.lfw_errata import ALSO_KNOWN_AS
from model_training.data.pictures import people_and_others, people_in_pairs, pictures_in, without_people
from tests.unit.model_training.common import MeanColours

CROPS = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
FACES = AlignedFaces(CROPS, [f"{i}.jpg" for i in range(5)])


class DyingTeacher(MeanColours):
    """Gives up after so many views."""

    def __init__(self, after):
        super().__init__()
        self._after = after

    def embed(self, crops):
        if self.seen + len(crops) > self._after:
            raise KeyboardInterrupt
        return super().embed(crops)


def label(out, teacher=None, *, faces=FACES, views_per_face=30, seed=7, batch=2):
    label_views([faces], teacher or MeanColours(), out, views_per_face=views_per_face, seed=seed, batch=batch)
    return ViewBank(out)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return label(tmp_path_factory.mktemp("bank"))


class TestLabelling:
    def test_every_view_has_the_label_of_its_own_pixels(self, bank):
        assert len(bank) == 150
        np.testing.assert_array_equal(bank.labels, MeanColours().embed(np.asarray(bank.views)))

    def test_each_face_is_seen_clean_once_and_otherwise_changed(self, bank):
        for index, crop in enumerate(CROPS):
            views = bank.views[index * 30 : index * 30 + 30]
            same = [bool((view == crop).all()) for view in views]
            assert same[0]
            assert sum(same) <= 3

    def test_an_interrupted_labelling_goes_on_to_the_identical_bank(self, bank, tmp_path):
        # The state is written every fifty batches of two: it dies at view 130 and 100 are kept.
        with pytest.raises(KeyboardInterrupt):
            label(tmp_path, DyingTeacher(after=130))
        with pytest.raises(DataError, match="100 of 150"):
            ViewBank(tmp_path)
        teacher = MeanColours()
        resumed = label(tmp_path, teacher)
        assert teacher.seen == 50
        np.testing.assert_array_equal(resumed.views, bank.views)
        np.testing.assert_array_equal(resumed.labels, bank.labels)

    def test_the_batch_size_changes_nothing(self, bank, tmp_path):
        np.testing.assert_array_equal(label(tmp_path, batch=64).views, bank.views)

    def test_another_seed_draws_other_views(self, bank, tmp_path):
        other = label(tmp_path, seed=8)
        assert not np.array_equal(other.views, bank.views)
        np.testing.assert_array_equal(other.views[::30], CROPS)

    def test_a_finished_bank_is_not_labelled_again(self, tmp_path):
        label(tmp_path, views_per_face=2)
        teacher = MeanColours()
        label(tmp_path, teacher, views_per_face=2)
        assert teacher.seen == 0

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 8},
            {"views_per_face": 3},
            {"faces": AlignedFaces(CROPS[:4], FACES.sources[:4])},
            {"teacher": MeanColours("another-teacher")},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_bank_of_another_recipe_is_refused(self, tmp_path, change):
        label(tmp_path, views_per_face=2)
        with pytest.raises(DataError, match="another recipe"):
            label(tmp_path, **{"views_per_face": 2, **change})

    def test_faces_of_several_folders_follow_each_other(self, tmp_path):
        parts = [AlignedFaces(CROPS[:2], ["a", "b"]), AlignedFaces(CROPS[2:], ["c", "d", "e"])]
        label_views(parts, MeanColours(), tmp_path, views_per_face=1, seed=0)
        np.testing.assert_array_equal(ViewBank(tmp_path).views, CROPS)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """150 views, of which each shows its own number."""
    folder = tmp_path_factory.mktemp("numbers")
    order = np.arange(150)
    np.save(folder / "views.npy", np.broadcast_to(order[:, None, None, None], (150, 112, 112, 3)).astype(np.uint8))
    np.save(folder / "labels.npy", order[:, None].astype(np.float32))
    (folder / "bank.json").write_text(json.dumps({"labelled": 150}))
    return ViewBank(folder)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Two folders of the same names, of which the first tells people apart: twenty views each of ada, ada, bob."""
    folder = tmp_path_factory.mktemp("named")
    parts = [AlignedFaces(CROPS[:3], ["ada/1", "ada/2", "bob/1"]), AlignedFaces(CROPS[3:], ["ada/1", "bob/1"])]
    label_views(parts, MeanColours(), folder, views_per_face=20, seed=3, identities=[True, False])
    return ViewBank(folder)


class TestIdentities:
    def test_views_know_whom_they_show_unless_two_are_mixed(self, named):
        assert named.people == 2
        by_face = named.classes.reshape(5, 20)
        for face, person in enumerate((0, 0, 1)):
            assert by_face[face, 0] == person
            assert set(by_face[face].tolist()) == {person, NOBODY}
        assert (by_face[3:] == NOBODY).all()

    def test_class_means_are_mean_directions(self, named):
        rows = np.asarray(named.labels[np.flatnonzero(named.classes == 1)], dtype=np.float64)
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(named.class_means()[1], mean / np.linalg.norm(mean), atol=1e-5)

    def test_batches_carry_them(self, named):
        batch = next(named.batches(10, 0, 0, np.arange(100)))
        rows = [np.flatnonzero((named.labels == label).all(axis=1))[0] for label in batch.labels]
        assert batch.classes.tolist() == named.classes[rows].tolist()

    def test_a_folder_that_names_nobody_has_no_means(self, bank):
        assert bank.people == 0
        assert (bank.classes == NOBODY).all()
        with pytest.raises(DataError, match="do not say whom they show"):
            bank.class_means()

    def test_the_same_name_in_two_folders_is_two_people(self, tmp_path):
        parts = [AlignedFaces(CROPS[:1], ["ada/1.jpg"]), AlignedFaces(CROPS[1:2], ["ada/1.jpg"])]
        label_views(parts, MeanColours(), tmp_path, views_per_face=1, seed=0, identities=[True, True])
        assert ViewBank(tmp_path).classes.tolist() == [0, 1]

    def test_a_bank_goes_on_only_with_the_same_people(self, named, tmp_path):
        label_views([FACES], MeanColours(), tmp_path, views_per_face=1, seed=0, identities=[True])
        with pytest.raises(DataError, match="another recipe"):
            label_views([FACES], MeanColours(), tmp_path, views_per_face=1, seed=0)


class TestBatches:
    def read(self, numbers, epoch=0, seed=1, skip=0):
        batches = list(numbers.batches(16, epoch, seed, np.arange(20, 120), skip))
        assert all(len(part) == 16 for batch in batches for part in batch)
        return batches

    def test_an_epoch_shows_each_view_at_most_once_and_no_other_row(self, numbers):
        batches = self.read(numbers)
        shown = np.concatenate([batch.labels for batch in batches])
        assert len(batches) == 6
        assert len(np.unique(shown)) == 96
        assert shown.min() >= 20 and shown.max() < 120

    def test_views_and_labels_stay_together(self, numbers):
        for batch in self.read(numbers):
            np.testing.assert_array_equal(batch.labels[:, 0], batch.views[:, 50, 60, 1])

    def test_the_order_follows_from_seed_and_epoch(self, numbers):
        first = [batch.labels.tobytes() for batch in self.read(numbers)]
        assert first == [batch.labels.tobytes() for batch in self.read(numbers)]
        assert first != [batch.labels.tobytes() for batch in self.read(numbers, epoch=1)]
        assert first != [batch.labels.tobytes() for batch in self.read(numbers, seed=2)]

    def test_skipping_leaves_out_the_first(self, numbers):
        whole, rest = self.read(numbers), self.read(numbers, skip=4)
        assert [batch.labels.tobytes() for batch in rest] == [batch.labels.tobytes() for batch in whole[4:]]


class TestPeople:
    PAIRS = "2\t2\nAda_Lovelace\t1\t2\nGrace_Hopper\t1\tAlan_Turing\t3\n\nAda_Lovelace\t2\tEmmy_Noether\t1\n"

    def test_both_forms_of_a_row_name_people(self, tmp_path):
        (tmp_path / "pairs.txt").write_text(self.PAIRS)
        names = people_in_pairs(tmp_path / "pairs.txt")
        assert names == {"Ada_Lovelace", "Grace_Hopper", "Alan_Turing", "Emmy_Noether"}

    def test_pictures_of_named_people_are_left_out(self):
        pictures = [Path(f"lfw/{name}/{name}_0001.jpg") for name in ("Ada_Lovelace", "Ada", "Kurt_Goedel")]
        kept = without_people(pictures, {"Ada_Lovelace", "Alan_Turing"})
        assert [path.parent.name for path in kept] == ["Ada", "Kurt_Goedel"]

    def test_pictures_are_found_below_a_folder_in_order(self, tmp_path):
        for name in ("b/2.JPG", "b/1.png", "a/3.jpeg", "a/notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = [str(path.relative_to(tmp_path)) for path in pictures_in(tmp_path)]
        assert found == ["a/3.jpeg", "b/1.png", "b/2.JPG"]


class TestPeopleAndOthers:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("Ada/Ada_0001", "Ada/Ada_0002", "Bob/Bob_0001", "Eve/Eve_0001", "Eve/Eve_0002", "Kim/Kim_0001"):
            path = tmp_path / f"{name}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return tmp_path

    def test_people_have_all_their_pictures_and_others_one(self, folder):
        people, others = people_and_others(folder, {"Ada", "Bob", "Zoe"})
        assert {name: [picture.stem for picture in theirs] for name, theirs in people.items()} == {
            "Ada": ["Ada_0001", "Ada_0002"], "Bob": ["Bob_0001"],
        }  # fmt: skip
        assert [picture.stem for picture in others] == ["Eve_0001", "Kim_0001"]

    def test_pictures_left_out_are_nobodys(self, folder):
        people, others = people_and_others(folder, {"Ada", "Bob"}, without={"Ada_0001", "Bob_0001", "Eve_0001"})
        assert {name: [picture.stem for picture in theirs] for name, theirs in people.items()} == {"Ada": ["Ada_0002"]}
        assert [picture.stem for picture in others] == ["Eve_0002", "Kim_0001"]

    def test_nobody_is_sent_on_to_a_name_that_is_left_out_itself(self):
        """Who is known by another name must still be somewhere under that name."""
        assert len(ALSO_KNOWN_AS) == 35
        for picture, name in ALSO_KNOWN_AS.items():
            assert picture.rpartition("_")[0] != name
            assert f"{name}_0001" not in ALSO_KNOWN_AS or f"{name}_0002" not in ALSO_KNOWN_AS


class TestFolders:
    def test_an_incomplete_folder_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="no prepared faces"):
            AlignedFaces.load(tmp_path)
        np.save(tmp_path / "crops.npy", CROPS)
        (tmp_path / "sources.json").write_text(json.dumps(["1.jpg"]))
        with pytest.raises(DataError, match="5 crops but 1 sources"):
            AlignedFaces.load(tmp_path)

    def test_some_of_the_faces_make_a_folder_of_their_own(self, tmp_path):
        FACES.save(tmp_path / "some", [0, 3])
        some = AlignedFaces.load(tmp_path / "some")
        assert some.sources == ["0.jpg", "3.jpg"]
        np.testing.assert_array_equal(some.crops, CROPS[[0, 3]])
        with pytest.raises(DataError, match="holds faces already"):
            FACES.save(tmp_path / "some", [1])


def test_faces_of_pictures_left_out_are_gone_and_their_people_stay_in_order():
    crops = np.arange(3 * 112 * 112 * 3, dtype=np.uint32).astype(np.uint8).reshape(3, 112, 112, 3)
    faces = AlignedFaces(crops, ["Ada/Ada_0001.jpg", "Bob/Bob_0001.jpg", "Eve/Eve_0001.jpg"]).without({"Bob_0001"})
    assert faces.people() == ["Ada", "Eve"]
    np.testing.assert_array_equal(faces.crops, crops[[0, 2]])
