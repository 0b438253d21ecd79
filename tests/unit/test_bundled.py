"""Networks that come along are named by their file's name alone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service import bundled
from service.bootstrap import build
from service.cli.migrate import _named
from service.contract import read_manifest
from service.domain import SpaceMismatch
from service.settings import Settings

EMBEDDERS = sorted(path.name for path in bundled.FOLDER.glob("student*.onnx"))


@pytest.mark.parametrize("name", EMBEDDERS)
def test_each_is_found_by_its_name_and_by_its_space(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHRINKFACE_EMBEDDER_PATH", name)
    path = Settings(_env_file=None).embedder_path
    assert path == bundled.FOLDER / name
    space = read_manifest(path).space_id
    assert space is not None and bundled.name_of_space(space) == name


def test_other_paths_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("theirs.onnx", "./sub/student.onnx", "../student.onnx", "/models/student.onnx"):
        assert bundled.located(Path(path)) == Path(path)
    (tmp_path / "student.onnx").write_bytes(b"theirs")
    assert bundled.located(Path("student.onnx")) == Path("student.onnx")
    assert bundled.name_of_space("sf1-of-nobody") is None


def test_the_command_line_leaves_the_name_to_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _named(Path("student.onnx")) == "student.onnx"
    assert _named(Path("sub/student.onnx")) == str(tmp_path / "sub" / "student.onnx")
    (tmp_path / "student.onnx").write_bytes(b"theirs")
    assert _named(Path("student.onnx")) == str(tmp_path / "student.onnx")


@pytest.mark.anyio
async def test_a_folder_of_another_one_says_which(tmp_path: Path) -> None:
    of_eight_bits = Settings(data_dir=tmp_path, embedder_path=Path("student-int8.onnx"), _env_file=None)
    async with AsyncExitStack() as stack:
        container = await build(of_eight_bits, stack)
        await container.gallery.enrol("g", "ann", None, {}, [])
    async with AsyncExitStack() as stack:
        with pytest.raises(SpaceMismatch, match=r"SHRINKFACE_EMBEDDER_PATH=student-int8\.onnx serves it"):
            await build(Settings(data_dir=tmp_path, _env_file=None), stack)
    async with AsyncExitStack() as stack:
        assert await (await build(of_eight_bits, stack)).gallery.persons("g", after=None, limit=2)
