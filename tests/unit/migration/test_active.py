"""Which folder is served by which model: what `active.json` says, and what the settings do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.contract import ContractError
from service.domain import StorageUnusable
from service.gallery.active import Places, gallery_folder, place_of, read_places, remove_place, write_places
from service.settings import Settings
from tests.second_model import second_model

SHIPPED = Settings(_env_file=None).embedder_path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_without_a_file_the_data_folder_is_served_by_the_model_of_the_settings(data_dir: Path) -> None:
    places = read_places(data_dir, SHIPPED)
    assert places == Places(place_of(SHIPPED, "."))
    assert gallery_folder(data_dir) == data_dir
    # And nothing is written where there is nothing to say.
    write_places(data_dir, places)
    assert list(data_dir.iterdir()) == []


def test_a_switch_is_found_again_whatever_of_both_models_the_settings_name(data_dir: Path, tmp_path: Path) -> None:
    model = second_model(tmp_path / "models")
    switched = read_places(data_dir, SHIPPED).switched(place_of(model))
    write_places(data_dir, switched)
    for embedder in (SHIPPED, model):
        found = read_places(data_dir, embedder)
        assert found == switched
        assert found.active.folder == f"spaces/{found.active.space_id}"
    assert gallery_folder(data_dir) == data_dir / switched.active.folder
    # Also after the previous one has been cleaned up, and when the model's file has moved.
    write_places(data_dir, Places(switched.active, replaced=switched.replaced))
    assert read_places(data_dir, SHIPPED).active == switched.active
    moved = second_model(tmp_path / "elsewhere")
    assert read_places(data_dir, moved).active.embedder == moved


def test_a_model_of_neither_space_is_left_for_the_gallery_to_refuse(data_dir: Path, tmp_path: Path) -> None:
    switched = read_places(data_dir, SHIPPED).switched(place_of(second_model(tmp_path / "models")))
    write_places(data_dir, switched)
    third = second_model(tmp_path / "models", seed=3)
    found = read_places(data_dir, third).active
    assert (found.folder, found.embedder, found.space_id) == (switched.active.folder, third, place_of(third).space_id)


def test_a_damaged_file_is_named(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "active.json"
    write_places(data_dir, read_places(data_dir, SHIPPED).switched(place_of(second_model(tmp_path / "models"))))
    whole = json.loads(path.read_bytes())
    for content in (b"", b"{", b"[]", json.dumps(whole | {"folder": "../elsewhere"}).encode(), b" " * 200_000):
        path.write_bytes(content)
        with pytest.raises(StorageUnusable, match=r"active\.json is damaged"):
            read_places(data_dir, SHIPPED)


def test_what_is_no_embedder_has_no_place() -> None:
    with pytest.raises(ContractError, match="not an embedder"):
        place_of(Settings(_env_file=None).detector_path)


def test_removing_the_first_folder_leaves_what_lies_beside_it(data_dir: Path) -> None:
    place = place_of(SHIPPED, ".")
    (data_dir / "index" / "g").mkdir(parents=True)
    for name in ("gallery.sqlite", "gallery.sqlite-wal", "api-keys.json", "active.json", "index/g/snapshot"):
        (data_dir / name).write_bytes(b"content")
    remove_place(data_dir, place)
    remove_place(data_dir, place)
    assert sorted(path.name for path in data_dir.iterdir()) == ["active.json", "api-keys.json"]
