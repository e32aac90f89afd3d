"""Celery's consumer, which does not knock at the door of a broker that refuses five times a second."""

from __future__ import annotations

import time

from celery.worker.consumer import Consumer

PAUSE = 2.0  # seconds until a broker that cut or refused the connection is tried again


class PatientConsumer(Consumer):
    """The main process of a worker has nothing to do while it has no broker: its child processes work on."""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        time.sleep(PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        time.sleep(PAUSE)
