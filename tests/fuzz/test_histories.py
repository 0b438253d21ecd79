"""A few histories of a gallery; `make fuzz` tries more."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.histories import Histories, SiftedHistories, _settings


@pytest.mark.parametrize("machine", [Histories, SiftedHistories])
def test_a_gallery_does_what_a_simple_one_does(machine: type[Histories]) -> None:
    run_state_machine_as_test(machine, settings=_settings(examples=6, steps=25, derandomize=True, database=None))
