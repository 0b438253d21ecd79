"""A process is killed in the middle of its changes, again and again, on one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.gallery.torture import Torture

ROUNDS = 5


@pytest.mark.anyio
async def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    torture = Torture(tmp_path, seed=0)
    for number in range(ROUNDS):
        torture.kill(number)
        await torture.check()
        torture.check_erased(number)
    assert len(torture.said["enrolled"]) > ROUNDS
