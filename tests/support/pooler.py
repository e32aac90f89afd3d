"""pgbouncer in front of the PostgreSQL of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from occsite.launch.process import dying_with_parent
from tests.support.system import free_port

LIMIT = 10.0  # Seconds until pgbouncer answers.


@contextmanager
def pooler(folder: Path, mode: str) -> Iterator[dict[str, Any]]:
    """Run pgbouncer during the ``with`` block. Yield the parameters of a connection through pgbouncer, for psycopg.

    The pooler is set to drop the startup parameter ``options``. By default, pgbouncer refuses connections with it.

    Args:
        folder: an empty directory for the files of pgbouncer.
        mode: the ``pool_mode`` of pgbouncer.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    behind = connection.get_connection_params()
    port = free_port()
    users = folder / "users.txt"
    users.write_text(f'"{behind["user"]}" "{behind["password"]}"\n')
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"""
        [databases]
        * = host={behind["host"]} port={behind["port"]}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = plain
        auth_file = {users}
        pool_mode = {mode}
        ignore_startup_parameters = options,extra_float_digits
        """
    )
    as_other = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"] if os.geteuid() == 0 else []
    argv = dying_with_parent(signal.SIGKILL, [*as_other, program, "--quiet", str(configuration)])
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parameters = {**behind, "host": "127.0.0.1", "port": port}
    try:
        _await_answer(parameters)
        yield parameters
    finally:
        process.kill()
        process.wait()


def _await_answer(parameters: dict[str, Any]) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            psycopg.connect(**parameters).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
