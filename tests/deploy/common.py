"""What the tests of several ways to deploy look at."""

from __future__ import annotations

import tomllib
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[2]
PORT = 8000
UID = 10001
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CLOSING_S = 10
"""What closing the galleries may take, once no request is in progress any more."""


def ending_s(settings: Settings) -> float:
    """How long a process may take to end when it is told to."""
    return settings.settle_s + settings.drain_s + CLOSING_S


def settings_of(environment: dict[str, str], monkeypatch) -> Settings:
    """What the service makes of an environment; every SHRINKFACE_ variable must be one that it reads."""
    known = {f"SHRINKFACE_{name.upper()}" for name in Settings.model_fields}
    unknown = {name for name in environment if name.startswith("SHRINKFACE_")} - known
    assert not unknown, f"the service reads no {', '.join(sorted(unknown))}"
    for name in known:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)
