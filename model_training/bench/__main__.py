"""Runs the benchmarks without the `shrinkface` command."""

from model_training.bench.commands import app

app()
