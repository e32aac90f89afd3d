"""The Celery application. A message only wakes a worker; the queue of record is the Job table."""

import os
import signal
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.signals import task_prerun, worker_process_init
from django.db import close_old_connections

from occsite.liveness import show_signs_of_life
from occsite.process import die_with_parent, settle

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
    # For the largest upload on the slowest disk; a task that hangs is overtaken when its lease ends, long before.
    task_time_limit=6 * 3600,
    task_soft_time_limit=6 * 3600 - 60,
    broker_transport_options={"visibility_timeout": 24 * 3600, "socket_timeout": 10, "socket_connect_timeout": 3},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_default_queue="maintenance",
    task_routes={"storage.ingest": {"queue": "ingest"}},
    timezone="UTC",
    CELERY_DB_REUSE_MAX=10**9,  # or Celery closes the pool of PostgreSQL sessions after every task
    # A beat that was away must not flood the queue: a wake-up not taken within its period is dropped.
    beat_schedule={
        "sweep": {"task": "storage.sweep", "schedule": timedelta(seconds=5), "options": {"expires": 5}},
        "probe": {"task": "storage.probe", "schedule": timedelta(seconds=5), "options": {"expires": 5}},
        "survey": {"task": "storage.survey", "schedule": timedelta(seconds=15), "options": {"expires": 15}},
        "reclaim": {"task": "storage.reclaim", "schedule": timedelta(seconds=30), "options": {"expires": 30}},
    },
)
app.autodiscover_tasks(["storage"])
show_signs_of_life(app)

_MAIN = os.getpid()  # read before any fork


@task_prerun.connect
def _begin_with_a_sound_connection(**_: Any) -> None:
    close_old_connections()


@worker_process_init.connect
def _begin(**_: Any) -> None:
    die_with_parent(signal.SIGKILL, _MAIN)
    settle()
