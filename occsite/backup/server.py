"""The embedded PostgreSQL for the time of a restore, when the service does not run."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from occsite.addresses import database_config
from occsite.launch import embedded
from occsite.launch.preparation import LIMIT, await_database
from occsite.launch.runtime import await_departure, runtime_dir
from occsite.launch.start import DEPARTURE_LIMIT


@contextmanager
def embedded_postgres(storage_dir: Path) -> Iterator[None]:
    """Run the embedded PostgreSQL of a state directory, and connect Django to it. A missing database is made.

    Raises:
        ConfigurationError: the server cannot be made, or does not start.
    """
    await_departure(storage_dir, DEPARTURE_LIMIT)
    embedded.prepare_postgres(storage_dir)
    (storage_dir / "logs").mkdir(exist_ok=True)
    with (storage_dir / "logs" / "postgres.log").open("ab") as log:
        server = subprocess.Popen(embedded.postgres_argv(storage_dir), stdout=log, stderr=log)
    try:
        # The password follows from the secret. Django's settings were loaded before the backup's secret was there.
        connection.settings_dict.update(_address(storage_dir))
        await_database(LIMIT).close()
        yield
    finally:
        connection.close()
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(runtime_dir(storage_dir), ignore_errors=True)


def _address(storage_dir: Path) -> dict[str, object]:
    address = database_config(embedded.database_url(storage_dir))
    return {name: address[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}
