"""Signs of life of the workers, which listen on no port: each worker touches a file while it works."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def show_sign_of_life() -> None:
    """Touch the file that LIVENESS_FILE names, if it names one."""
    if path := os.environ.get("LIVENESS_FILE"):
        with contextlib.suppress(OSError):
            Path(path).touch()
