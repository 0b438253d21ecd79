"""Prepares a folder of aligned faces in a process that a test may kill, with an entry in the journal every four.

python -m tests.unit.model_training.preparing_worker PICTURES OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from model_training.data import preparing
from model_training.data.alignment import Alignment
from model_training.data.sources import PictureFolder

if __name__ == "__main__":
    preparing._BLOCK, preparing._BLOCKS_AN_ENTRY = 2, 2
    preparing.prepare_faces(PictureFolder(Path(sys.argv[1])), Path(sys.argv[2]), Alignment(None))
