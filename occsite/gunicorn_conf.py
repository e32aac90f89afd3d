"""How gunicorn serves the API; started by ``manage.py serve`` and by nobody else."""

import os
import signal
from pathlib import Path
from typing import Any

from occsite.process import die_with_parent
from occsite.state import authority
from storage.api.transfers import THREADS
from storage.conf import Configuration

_configuration = Configuration.from_environment(os.environ)

bind = authority(_configuration.host, _configuration.port)
worker_class = "occsite.gunicorn_worker.Worker"
workers = 2
threads = THREADS
timeout = 120
raw_env = ["DATABASE_PATIENCE=10"]  # a client gets a 503 after that
keepalive = 15
graceful_timeout = 3  # below the time the manager gives the whole of gunicorn to stop
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a heartbeat must not wait for a disk
control_socket_disable = True


def post_fork(_server: Any, worker: Any) -> None:
    """Gunicorn calls this in every new worker process."""
    die_with_parent(signal.SIGKILL, worker.ppid)
