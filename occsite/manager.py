"""The process manager: supervisor, with a voice on the terminal and an exit status that tells the truth."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from supervisor import events
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from occsite.embedded import prepare_postgres, prepare_valkey
from occsite.files import write_private
from occsite.programs import log_path, supervisor_configuration
from occsite.runtime import await_departure, make_runtime_dir, runtime_dir
from occsite.secret import make_secret, read_secret
from occsite.state import check_port, lock_state, make_state_dir
from storage.conf import Configuration
from storage.exceptions import ConfigurationError

DEPARTURE_LIMIT = 15.0  # seconds a database of a killed run has to write its last checkpoint
REFUSAL = "occ-storage: "  # how manage.py begins the line with which it refuses
POLL_INTERVAL = 0.2  # seconds until a signal is noticed
GATHERING = 0.03  # seconds in which lines of the programs' logs gather, to be taken together


class Options(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """Supervisor's options, except that a terminal that is closed ends the run instead of restarting it."""

    def get_signal(self) -> int | None:
        signum: int | None = super().get_signal()
        return signal.SIGTERM if signum == signal.SIGHUP else signum


class Manager(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """A supervisor that ends the run when a program cannot be kept up; ``failed`` says that this happened."""

    failed = False

    def __init__(self, options: Options, configuration: Configuration) -> None:
        super().__init__(options)
        self.configuration = configuration

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogStdoutEvent, self.on_output)
        events.subscribe(events.ProcessStateFatalEvent, self.on_fatal)
        events.subscribe(events.ProcessStateExitedEvent, self.on_exit)
        events.subscribe(events.SupervisorStoppingEvent, lambda _: _say(sys.stdout, "OCC Storage stops\n"))
        poll = self.options.poller.poll

        def gather(timeout: float) -> Any:
            time.sleep(GATHERING)
            # A signal does not interrupt supervisor's wait, which lasts a second; ours is shorter.
            return poll(min(timeout, POLL_INTERVAL))

        self.options.poller.poll = gather
        super().runforever()

    def on_output(self, event: Any) -> None:
        _say(sys.stdout, event.data if isinstance(event.data, str) else event.data.decode(errors="replace"))

    def on_fatal(self, event: Any) -> None:
        if self.options.mood == SupervisorStates.RUNNING:
            name = event.process.config.name
            above = self.configuration.log_to_stdout
            self.end(f"{name} does not stay up; its last words are {'above' if above else f'in {self.log_of(name)}'}")

    def on_exit(self, event: Any) -> None:
        # Of those that are not started again, which is boot alone.
        name = event.process.config.name
        if name == "boot" and not event.expected:
            last = self.log_of(name).read_text().rstrip().rpartition("\n")[2]
            refusal = last.removeprefix(REFUSAL)
            self.end(refusal if refusal != last else f"{name} failed ({last}); more is in {self.log_of(name)}")

    def log_of(self, name: str) -> Path:
        return log_path(self.configuration.storage_dir, name)

    def end(self, reason: str) -> None:
        _say(sys.stderr, f"{REFUSAL}{reason}\n")
        self.failed = True
        self.options.mood = SupervisorStates.SHUTDOWN


def serve(configuration: Configuration) -> int:
    """Run the whole system until a signal or a failure ends it.

    Returns:
        The exit status: 0 after a signal, 1 after a failure.

    Raises:
        ConfigurationError: the environment does not allow a start.
    """
    storage_dir = configuration.storage_dir
    os.umask(0o077)
    make_state_dir(storage_dir)
    with lock_state(storage_dir):
        runtime = make_runtime_dir(storage_dir)
        try:
            _prepare(configuration)
            return _run(configuration)
        finally:
            shutil.rmtree(runtime, ignore_errors=True)


def _prepare(configuration: Configuration) -> None:
    storage_dir = configuration.storage_dir
    check_port(configuration.host, configuration.port)
    await_departure(storage_dir, DEPARTURE_LIMIT)
    shutil.rmtree(runtime_dir(storage_dir))  # what a killed run left in it
    make_runtime_dir(storage_dir)
    if (storage_dir / "postgres").exists() and not read_secret(storage_dir):
        raise ConfigurationError(f"{storage_dir / 'secret'} is gone, and with it the password of the database there")
    try:
        make_secret(storage_dir)
        (storage_dir / "logs").mkdir(exist_ok=True)
        if not configuration.database_url:
            prepare_postgres(storage_dir)
        if not configuration.redis_url:
            prepare_valkey(storage_dir)
    except OSError as error:
        raise ConfigurationError(f"the state folder cannot be prepared: {error}") from None


def _run(configuration: Configuration) -> int:
    # The programs run in another folder than a relative STORAGE_DIR may have been meant from.
    os.environ["STORAGE_DIR"] = str(configuration.storage_dir)
    runtime = runtime_dir(configuration.storage_dir)
    os.environ["TMPDIR"] = str(runtime)  # so that what a killed program leaves there goes with the next start
    # glibc would give each thread memory of its own, and there are as many as volumes have lanes.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    path = runtime / "manager.conf"
    write_private(path, supervisor_configuration(configuration))
    options = Options()
    options.realize(["-c", str(path)])
    options.first, options.test = True, False
    manager = Manager(options, configuration)
    with contextlib.suppress(ExitNow):
        manager.main()
    options.close_httpservers()
    options.close_logger()
    return int(manager.failed)


def _say(stream: TextIO, text: str) -> None:
    # The terminal may be gone; that is no reason to end what runs.
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()
