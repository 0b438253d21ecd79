"""What settings mean where they are left to the machine."""

from __future__ import annotations

import pytest

from service.settings import Settings


def test_runs_of_the_network_suit_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert Settings().embed_runs == (2, 2)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Settings().embed_runs == (4, 2)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert Settings().embed_runs == (1, 2)
    gpu = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert Settings(providers=gpu).embed_runs == (1, 16)
    assert Settings(providers=gpu, embed_workers=3, embed_max_batch=64).embed_runs == (3, 64)
    assert Settings(embed_workers=1).embed_runs == (1, 2)
