"""A pytest plugin: a real PostgreSQL and a real Valkey for the session, unless the environment names other servers.

The addresses are set while this module is imported, before pytest-django reads the settings. The servers start when the
tests have been collected or, without Django, when a test asks for one. The Redis database of REDIS_URL is emptied.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import BoundedSemaphore

import environ
import psycopg
import pytest
import redis

from occsite.launch import embedded
from occsite.launch.runtime import runtime_dir
from occsite.launch.secret import make_secret

LIMIT = 30.0  # Seconds that a server may take to start.
OWNER = "OCC_TEST_SERVERS_OF"  # This variable holds the id of the process whose servers the environment names.


class Services:
    """The servers of this test session. Each server is started when it is first needed."""

    def __init__(self) -> None:
        self.storage_dir = Path(tempfile.mkdtemp(prefix="occ-tests-"))
        self.starters: list[Callable[[], None]] = []
        self.running: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []
        os.environ["STORAGE_DIR"] = str(self.storage_dir)
        os.environ["SECRET_KEY"] = make_secret(self.storage_dir)
        # A process of a parallel test run has inherited the addresses of its parent's servers, and must not use them.
        if OWNER in os.environ:
            os.environ.pop("DATABASE_URL", None)
            os.environ.pop("REDIS_URL", None)
        if not os.environ.get("DATABASE_URL"):
            os.environ["DATABASE_URL"] = embedded.database_url(self.storage_dir)
            self.starters.append(self._start_postgres)
            os.environ[OWNER] = str(os.getpid())
        if not os.environ.get("REDIS_URL"):
            os.environ["REDIS_URL"] = embedded.redis_url(self.storage_dir)
            self.starters.append(self._start_valkey)
            os.environ[OWNER] = str(os.getpid())

    def start(self) -> None:
        while self.starters:
            self.starters.pop()()

    def stop(self) -> None:
        for process, signum in self.running:
            process.send_signal(signum)
        for process, _ in self.running:
            process.wait()
        shutil.rmtree(runtime_dir(self.storage_dir), ignore_errors=True)
        shutil.rmtree(self.storage_dir, ignore_errors=True)

    def _start_postgres(self) -> None:
        embedded.prepare_postgres(self.storage_dir, durable=False)
        config = environ.Env.db_url_config(os.environ["DATABASE_URL"])
        arguments = {name: str(config[name.upper()]) for name in ("host", "port", "user", "password")}

        def probe() -> None:
            psycopg.connect(**arguments, dbname=config["NAME"]).close()  # type: ignore[arg-type]

        self._launch("postgres", embedded.postgres_argv(self.storage_dir, durable=False), signal.SIGINT, probe)

    def _start_valkey(self) -> None:
        embedded.prepare_valkey(self.storage_dir)

        def probe() -> None:
            with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
                client.ping()

        self._launch("valkey", embedded.valkey_argv(self.storage_dir), signal.SIGTERM, probe)

    def _launch(self, name: str, argv: list[str], stop: signal.Signals, probe: Callable[[], None]) -> None:
        log = self.storage_dir / f"{name}.log"
        with log.open("wb") as output:
            # The server has a process group of its own, so Ctrl-C reaches pytest alone. After a Ctrl-C, pytest stops
            # the servers.
            process = subprocess.Popen(argv, stdout=output, stderr=output, process_group=0)
        self.running.append((process, stop))
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                return probe()
            except (psycopg.OperationalError, redis.RedisError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start:\n{log.read_text()}") from error
                time.sleep(0.02)


services = Services()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the servers if there are tests to run that may use them without asking for a fixture."""
    options = session.config.option
    if session.items and session.config.pluginmanager.hasplugin("django") and not options.collectonly:
        services.start()


def pytest_unconfigure() -> None:
    """Stop the servers, after pytest-django has dropped its database."""
    services.stop()


@pytest.fixture
def redis_client() -> Iterator[redis.Redis]:
    """A client of an empty Redis. The client returns bytes."""
    services.start()
    with redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=False) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture(autouse=True)
def free_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test all places for transfers: answers that earlier tests have not read to their ends hold places."""
    from storage.api.wsgi import transfers  # This import needs a configured Django.

    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(transfers.TRANSFERS))
