"""Gunicorn's configuration for the API, which ``manage.py serve`` and ``manage.py run api`` use."""

import os
import resource
import signal
from pathlib import Path
from typing import Any

from occsite.launch.process import die_with_parent
from occsite.launch.runtime import make_own_dir, scratch_dir
from occsite.launch.state import authority
from storage.api.metrics import seats
from storage.api.wsgi.transfers import FREE, THREADS
from storage.conf import Configuration
from storage.exceptions import ConfigurationError

MOST_CONNECTIONS = 4000  # A process takes at most this many connections: more of them cost memory, and help no client.
DESCRIPTORS = 8  # The files and database sockets of one thread need this many descriptors.


def _raise_descriptor_limit() -> int:
    """Allow as many descriptors as this process may have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MOST_CONNECTIONS * 2 if hard == resource.RLIM_INFINITY else hard


_configuration = Configuration.from_environment(os.environ)

# Each process listens on both ports. ``occsite.wsgi`` tells the doors apart by the port.
bind = [authority(_configuration.host, port) for port in (_configuration.port, _configuration.s3_port) if port]
worker_class = "occsite.server.gunicorn_worker.Worker"
workers = 2
threads = THREADS
worker_connections = max(THREADS + FREE, min(MOST_CONNECTIONS, _raise_descriptor_limit() - DESCRIPTORS * THREADS))
timeout = 120
raw_env = ["DATABASE_PATIENCE=10"]  # If PostgreSQL does not answer for this many seconds, the client gets a 503.
keepalive = 15
sendfile = False  # All bytes for a client must pass through ``SteadySocket``, which watches for silent clients.
graceful_timeout = 3  # seconds. The process manager (``occsite.launch.manager``) kills gunicorn after 4 seconds.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  A heartbeat must not wait for a disk.
control_socket_disable = True
# gunicorn's own list of trusted proxies is empty: ``api.wsgi.forwarding`` reads the fields of the proxies in
# TRUSTED_PROXIES. Of these fields, gunicorn reads only SCRIPT_NAME, which ``gunicorn_request`` accepts from them.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = "SCRIPT_NAME"
header_map = "drop"


def post_fork(_server: Any, worker: Any) -> None:
    """Gunicorn calls this function in every new worker process."""
    die_with_parent(signal.SIGKILL, worker.ppid)
    try:
        seats.claim(make_own_dir(scratch_dir(_configuration.storage_dir)) / "metrics")
    except ConfigurationError as error:
        # Another user may have put something in the place of the scratch directory. Without a seat the process keeps
        # its counts in its own memory.
        worker.log.warning("metrics of this process alone: %s", error)
