"""Where the bundled models lie."""

from pathlib import Path

import service

DETECTOR = Path(service.__file__).parent / "models" / "detector.onnx"
