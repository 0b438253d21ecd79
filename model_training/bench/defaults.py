"""Where the shipped models lie."""

from pathlib import Path

MODELS = Path(__file__).parents[2] / "service" / "models"
