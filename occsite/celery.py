"""The Celery application. A message only wakes a worker; the queue of record is the Job table.

The workers go on without a broker: their processes look into the Job table by themselves (``occsite.lookout``).
"""

import os
import signal
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, task_prerun, worker_process_init, worker_process_shutdown
from django.db import close_old_connections

from occsite.launch.process import die_with_parent, settle
from occsite.lookout import keep_lookout
from storage.queues import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")

app = Celery("occ_storage")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # The time limit is enough for the largest upload on the slowest disk. If a task hangs, its lease ends long before
    # this limit, and another worker takes the job.
    task_time_limit=6 * 3600,
    task_soft_time_limit=6 * 3600 - 60,
    broker_transport_options={"visibility_timeout": 24 * 3600, "socket_timeout": 10, "socket_connect_timeout": 3},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # A full Redis, or a replica, refuses messages; later it may accept them.
    worker_consumer="occsite.consumer:PatientConsumer",
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_default_queue=Queue.MAINTENANCE.value,
    task_routes={"storage.ingest": {"queue": Queue.INGEST.value}},
    timezone="UTC",
    CELERY_DB_REUSE_MAX=10**9,  # By default, Celery closes the pool of PostgreSQL sessions after every task.
)
app.autodiscover_tasks(["storage"])

_MAIN = os.getpid()  # This module is loaded before any fork, so this is the id of the worker's main process.
_queues: list[str] = []


@celeryd_after_setup.connect
def _remember_queues(instance: Any, **_: Any) -> None:
    _queues[:] = instance.app.amqp.queues.consume_from


@task_prerun.connect
def _begin_with_a_sound_connection(**_: Any) -> None:
    close_old_connections()


@worker_process_init.connect
def _begin(**_: Any) -> None:
    die_with_parent(signal.SIGKILL, _MAIN)
    settle()
    keep_lookout(app, _queues)


@worker_process_shutdown.connect
def _end(**_: Any) -> None:
    if Queue.MAINTENANCE in _queues:
        app.tasks["storage.begin_generation"]()
