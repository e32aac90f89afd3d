"""Signs of life of the workers, which answer on no port: a file that each touches while it is at work."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def show_sign_of_life() -> None:
    """Touch the file that LIVENESS_FILE names, if it names one."""
    if path := os.environ.get("LIVENESS_FILE"):
        with contextlib.suppress(OSError):
            Path(path).touch()
