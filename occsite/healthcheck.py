"""The health check of the container image: exit status 0 while the program of this container is well.

The image runs this file by its path. Importing the package would load Django every thirty seconds in every container.
"""

import http.client
import os
import sys
import time
from pathlib import Path

PATIENCE = 8.0  # seconds to wait for an answer, below the limit of HEALTHCHECK in the Dockerfile
LIVENESS_LIMIT = 60.0  # A program is unwell after this many seconds without a sign of life.


def ailment() -> str | None:
    """The trouble in words; None if nothing is wrong.

    A program without a port has LIVENESS_FILE set: it touches that file while it works (``occsite.liveness``). Any
    other program is asked for ``/health``.
    """
    if path := os.environ.get("LIVENESS_FILE"):
        try:
            silence = time.time() - Path(path).stat().st_mtime
        except FileNotFoundError:
            return "no sign of life yet"
        return None if silence < LIVENESS_LIMIT else f"no sign of life for {silence:.0f} s"
    server = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 5000), timeout=PATIENCE)
    try:
        server.request("GET", "/health")
        response = server.getresponse()
        answer = response.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return None if response.status == 200 else f"{response.status} {answer}"


if __name__ == "__main__":
    sys.exit(ailment())
