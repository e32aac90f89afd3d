"""Signs of life of Celery programs, which answer on no port: a file that each touches while it is at work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from celery.signals import after_task_publish, beat_init

INTERVAL = 5.0  # seconds between a worker's signs of life


def show_signs_of_life(app: Celery) -> None:
    """Have every worker and beat of ``app`` touch the file that LIVENESS_FILE names, if it names one."""
    if path := os.environ.get("LIVENESS_FILE"):
        file = Path(path)
        app.steps["worker"].add(_pulse(file))

        def follow_beat(**_: Any) -> None:
            # What beat lives for: a wake-up has reached the broker.
            after_task_publish.connect(lambda **_: file.touch(), weak=False)

        beat_init.connect(follow_beat, weak=False)


def _pulse(file: Path) -> type[bootsteps.StartStopStep]:
    class Pulse(bootsteps.StartStopStep):
        """Touches the file from the worker's event loop, which stands still while the broker is away."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: Any) -> None:
            worker.timer.call_repeatedly(INTERVAL, file.touch)

    return Pulse
