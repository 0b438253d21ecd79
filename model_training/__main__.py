"""Run the training commands."""

from model_training.cli import app

app()
