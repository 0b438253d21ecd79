"""onnxruntime, which from version 1.32 on reports its use to Microsoft unless it is told not to before it is loaded.

Whoever needs it takes it from here.
"""

from __future__ import annotations

import os

# Read by the library when it is loaded, so it cannot be a setting like others.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
