"""Named points of the work that moves bytes, so that a test can stop a process exactly there.

In production a phase costs one comparison: nothing happens unless the variable PHASE_GATES names a directory. A file in
this directory that has the name of a phase, such as ``ingest.write``, stops every process that enters the phase, until
the file is gone. While a process is stopped, it keeps a file ``<phase>.<pid>`` in the directory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_gates = Path(os.environ["PHASE_GATES"]) if os.environ.get("PHASE_GATES") else None


def enter(phase: str) -> None:
    """Begin a phase; its name is ``<operation>.<step>``."""
    if _gates is not None:
        _hold(_gates, phase)


def _hold(gates: Path, phase: str) -> None:
    gate = gates / phase
    if not gate.exists():
        return
    arrived = gates / f"{phase}.{os.getpid()}"
    arrived.touch()
    while gate.exists():
        time.sleep(0.02)
    arrived.unlink(missing_ok=True)
