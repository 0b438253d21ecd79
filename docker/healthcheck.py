"""Exit with 0 if the service of this container is ready, with 1 if not; the standard library is all that is there."""

from __future__ import annotations

import http.client
import os
import sys

# A connection to 0.0.0.0, or ::, goes to this machine.
_HOST = os.environ.get("SHRINKFACE_HOST", "127.0.0.1")
_PORT = int(os.environ.get("SHRINKFACE_PORT", "8000"))

connection = http.client.HTTPConnection(_HOST, _PORT, timeout=4)
try:
    connection.request("GET", "/health/ready")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer: {error}")
finally:
    connection.close()
sys.exit(None if status == http.client.OK else f"not ready: {status}")
