"""That the library which runs the networks tells nobody of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import service

REPOSITORY = Path(service.__file__).parents[1]


@pytest.mark.parametrize(
    "module", ["service.vision.embedding", "service.bootstrap", "model_training.teachers.networks"]
)
def test_telemetry_is_off_before_the_library_is_loaded(module: str) -> None:
    code = (
        "import os, sys\n"
        f"import {module}\n"
        "assert 'onnxruntime' in sys.modules\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "1", ended.stderr


def test_nothing_else_loads_the_library_first() -> None:
    loading = re.compile(r"^\s*(import onnxruntime|from onnxruntime import)", re.MULTILINE)
    found = [
        str(path.relative_to(REPOSITORY))
        for package in ("service", "model_training")
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if loading.search(path.read_text())
    ]
    assert found == ["service/vision/runtime.py"]
