"""Faults under the service at work: one in the default suite, all of them in the slow one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import cast, experiment
from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS


def held(fault: Fault, log: Path) -> None:
    outcome = experiment.run(fault, cast.portraits(), log)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.wrong == []
    assert outcome.not_allowed == []
    assert outcome.differences == []
    assert outcome.acknowledged > 5_000
    assert outcome.requests["ok"] > 20


def test_a_killed_service_keeps_its_word(tmp_path: Path) -> None:
    held(FAULTS["service-killed"](), tmp_path / "service.log")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"service-killed"}))
def test_the_service_holds_under_every_fault(name: str, tmp_path: Path) -> None:
    held(FAULTS[name](), tmp_path / "service.log")
