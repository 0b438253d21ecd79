"""onnxruntime, which from version 1.32 on reports its use to Microsoft unless it is told not to before it is loaded.

Whoever needs it takes it from here.
"""

from __future__ import annotations

import os

# Read by the library when it is loaded, so it cannot be a setting like others.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

onnxruntime.disable_telemetry_events()


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Options of a network that runs beside others.

    Args:
        threads: of one run; several runs may go on at once.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from decoding and detection.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


__all__ = ["onnxruntime", "session_options"]
