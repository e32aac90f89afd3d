"""Celery's consumer, which does not knock at the door of a broker that refuses five times a second."""

from __future__ import annotations

import time

import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger(__name__)

PAUSE = 2.0  # seconds until a broker that cut or refused the connection is tried again


class PatientConsumer(Consumer):
    """The main process of a worker has nothing to do while it has no broker: its child processes work on."""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        time.sleep(PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001  whatever kombu meets
            # kombu hands unacknowledged messages back while it closes the connection, and fails if the broker has died.
            # That would end the worker with its child processes, and keep their uploads until the leases end.
            log.warning("broker.unclosed", error=repr(error))
        time.sleep(PAUSE)
