"""Celery's consumer with a pause: without it, a broker that refuses is tried again five times a second."""

from __future__ import annotations

import time

import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger(__name__)

PAUSE = 2.0  # seconds before a broker that cut or refused the connection is tried again


class PatientConsumer(Consumer):
    """Waits after each connection error. The worker's child processes go on with their work during the wait."""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        time.sleep(PAUSE)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001  kombu passes on any error here
            # kombu hands unacknowledged messages back while it closes the connection, and fails if the broker has died.
            # Without this handler, the error would end the worker and its child processes, and their uploads would wait
            # until the leases end.
            log.warning("broker.unclosed", error=repr(error))
        time.sleep(PAUSE)
