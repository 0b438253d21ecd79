"""A campaign over a target with known faults; `make fuzz-smoke` runs the whole of one, where atheris is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import campaign, targets


@pytest.mark.slow
def test_a_campaign_finds_each_kind_of_fault_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    monkeypatch.setattr(campaign, "CORPUS", tmp_path / "kept")
    folders = [tmp_path / "corpus", tmp_path / "run" / "artifacts", tmp_path / "kept" / "planted"]
    for folder in folders:
        folder.mkdir(parents=True)
    corpus, artifacts, kept = folders
    (corpus / "seed").write_bytes(targets.target("planted").seeds()["nothing"])
    found = campaign._searched("planted", corpus, artifacts, 90)
    assert {path.read_bytes()[:2] for path in kept.iterdir()} == {b"FA", b"HA", b"SW"}
    told = {path.read_bytes()[:2]: wrong for path, wrong in found.items()}
    assert "ValueError: planted" in told[b"FA"]
    assert told[b"HA"].startswith("took") and told[b"HA"].endswith(" s")
    assert told[b"SW"].endswith("MB")


def test_what_was_found_is_tried_again_without_libfuzzer(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"F_H_S_")
    assert campaign._replayed("planted", tmp_path) == ({}, pytest.approx(0.0, abs=2.0))
    (tmp_path / "bad").write_bytes(b"FA")
    failures, _ = campaign._replayed("planted", tmp_path)
    assert list(failures) == ["bad"]
    assert "ValueError: planted" in failures["bad"]
