"""What a run reports can be read as a table and by TensorBoard, also after an interruption."""

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_training.training.run_log import RunLog


def table(folder):
    with (folder / "log.csv").open(newline="") as stream:
        return [(int(row["step"]), float(row["loss"]), float(row["rate"])) for row in csv.DictReader(stream)]


def shown(folder, name):
    """What TensorBoard shows of a figure."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(name)]


def test_both_show_every_figure(tmp_path):
    log = RunLog(tmp_path)
    for step, loss in ((10, 0.5), (20, 0.123456789), (30, 3e-7)):
        log.write(step, {"loss": loss, "rate": step / 1000})
    log.close()
    assert table(tmp_path) == [(10, 0.5, 0.01), (20, 0.123457, 0.02), (30, 3e-7, 0.03)]
    assert shown(tmp_path, "loss") == [(10, 0.5), (20, 0.123456789), (30, 3e-7)]
    assert shown(tmp_path, "rate") == [(10, 0.01), (20, 0.02), (30, 0.03)]


def test_steps_that_a_resumed_run_repeats_are_replaced(tmp_path):
    killed = RunLog(tmp_path)
    for step in (10, 20, 30):
        killed.write(step, {"loss": 1.0, "rate": 0.0})
    resumed = RunLog(tmp_path)
    for step in (20, 30, 40):
        resumed.write(step, {"loss": 2.0, "rate": 0.0})
    resumed.close()
    assert table(tmp_path) == [(10, 1.0, 0), (20, 2.0, 0), (30, 2.0, 0), (40, 2.0, 0)]
    assert shown(tmp_path, "loss") == [(10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0)]


def test_nothing_is_written_before_the_first_report(tmp_path):
    RunLog(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
