"""The health check of the container image: exit status 0 while the program of this container is well.

It is run as a file, by path: importing the package would load Django, every thirty seconds in every container.
"""

import http.client
import os
import sys
import time
from pathlib import Path

PATIENCE = 8.0  # seconds, below the image's own limit
LIVENESS_LIMIT = 60.0  # seconds without a sign of life


def ailment() -> str | None:
    """What is wrong; None if nothing is.

    A program without a port names a file in LIVENESS_FILE that it touches while it is at work (``occsite.liveness``);
    any other is asked for ``/health``.
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
