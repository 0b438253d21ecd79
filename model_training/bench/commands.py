"""`shrinkface bench`: protocols on raw pictures, run through the serving code and the shipped models.

Needs no torch: what it measures is the product, not the training setup.
"""

from __future__ import annotations

import typer

from model_training.bench.detection import run_detection
from model_training.bench.identification import run_identification
from model_training.bench.open_set import run_open_set
from model_training.bench.speed import run_speed
from model_training.bench.templates import run_templates
from model_training.bench.thresholds import run_thresholds
from model_training.bench.tradeoff import run_tradeoff
from model_training.bench.verification import run_verification

app = typer.Typer(help="Measure the shipped models.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Measure the shipped models."""


app.command("verification")(run_verification)
app.command("identification")(run_identification)
app.command("templates")(run_templates)
app.command("open-set")(run_open_set)
app.command("detection")(run_detection)
app.command("speed")(run_speed)
app.command("tradeoff")(run_tradeoff)
app.command("thresholds")(run_thresholds)
