"""The distillation pipeline that makes the models the service runs."""

import os

# See `service.vision.runtime`; some modules here load onnxruntime by themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
