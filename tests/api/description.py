"""The API's description, as the snapshot beside it has it.

python -m tests.api.description > tests/api/openapi.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from service.api.app import create_app
from service.settings import Settings


def describe() -> dict[str, Any]:
    """What `/openapi.json` answers, but for the version."""
    described = create_app(Settings(_env_file=None)).openapi()
    described["info"].pop("version")
    return json.loads(json.dumps(described))


if __name__ == "__main__":
    json.dump(describe(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
