"""The process manager: supervisor, which also reports on the terminal, and ends with status 1 if the run fails."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from supervisor import events, loggers
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from occsite.launch.output import STDERR, LogFile, say
from occsite.launch.programs import PROJECT, log_path, programs
from occsite.launch.state import local_url
from occsite.launch.watch import Watch
from storage.conf import Configuration
from storage.exceptions import ConfigurationError

REFUSAL = "occ-storage: "  # manage.py begins the line about a ConfigurationError with this.
POLL_INTERVAL = 0.2  # A signal is noticed within this many seconds.
GATHERING = 0.03  # Lines of the programs' logs are gathered for this many seconds, and then handled together.
ATTEMPTS = 2  # Before the system is ready for the first time, this many failed starts in a row end the run.
# The longest pause in seconds before a failing program is started again. The pause is shorter for databases, because
# all other programs wait for them.
LONGEST_PAUSE = {"application": 30, "databases": 5}


class Options(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """Supervisor's options with three changes.

    A terminal that is closed ends the run and does not restart it. Supervisor's log lines go to the log of the manager.
    An error in the configuration raises an exception, whose message shows no part of the environment.
    """

    def __init__(self, configuration: Configuration, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self.environ_expansions: dict[str, str] = {}
        self.write_log = write
        self.commands = {program.name: program.command for program in programs(configuration)}

    def process_groups_from_parser(self, parser: Any) -> Any:
        groups = super().process_groups_from_parser(parser)
        # Supervisor interprets %, ; and # in its configuration file, and paths may have these characters. So this
        # method sets the commands and directories, and the configuration file does not have them.
        for process in (process for group in groups for process in group.process_configs):
            process.command, process.directory = self.commands[process.name], str(PROJECT)
        return groups

    def make_logger(self) -> None:
        self.logger = loggers.getLogger(self.loglevel)
        handler = Relay(self.write_log)
        handler.setFormat("%(asctime)s %(levelname)s %(message)s\n")
        self.logger.addHandler(handler)

    def usage(self, msg: object) -> None:
        raise ConfigurationError(f"the process manager cannot start: {' '.join(str(msg).split())}")

    def get_signal(self) -> int | None:
        signum: int | None = super().get_signal()
        return signal.SIGTERM if signum == signal.SIGHUP else signum


class Relay(loggers.Handler):  # type: ignore[misc]  # supervisor has no types
    """Passes supervisor's own log lines on. Supervisor's handlers would raise on a full disk, and so end the run."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__()
        self.write = write

    def emit(self, record: Any) -> None:
        self.write((self.fmt % record.asdict()).encode(errors="replace"))

    def close(self) -> None:
        self.closed = True


class Manager(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """A supervisor that starts failing programs again for ever, after the first start has succeeded.

    Until the first start has succeeded, the run ends if a program does not stay up or ``boot`` fails. ``failed`` is
    true if the run ended for one of these reasons.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.failed = False
        self.booted = False
        self.down: set[str] = set()
        self._boot_errors = b""
        self._logs: dict[str, LogFile] = {}
        super().__init__(Options(configuration, lambda line: self.log("manager", line)))

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogStdoutEvent, self.on_output)
        events.subscribe(events.ProcessLogStderrEvent, self.on_boot_errors)
        events.subscribe(events.ProcessStateBackoffEvent, self.on_backoff)
        events.subscribe(events.ProcessStateExitedEvent, self.on_exit)
        events.subscribe(events.ProcessStateRunningEvent, self.on_running)
        events.subscribe(events.SupervisorStoppingEvent, lambda _: say("OCC Storage stops\n"))
        poll = self.options.poller.poll

        def gather(timeout: float) -> Any:
            time.sleep(GATHERING)
            # A signal does not interrupt supervisor's wait of a second, so POLL_INTERVAL is shorter than a second.
            return poll(min(timeout, POLL_INTERVAL))

        self.options.poller.poll = gather
        super().runforever()

    def log(self, name: str, data: bytes) -> None:
        """Write output of a program, or of ``manager`` itself, to the terminal or to its log file."""
        if self.configuration.log_to_stdout:
            say(data)
            return
        if name not in self._logs:
            self._logs[name] = LogFile(log_path(self.configuration.storage_dir, name))
        self._logs[name].write(data)

    def on_output(self, event: Any) -> None:
        name = event.process.config.name
        if name == "boot":
            say(event.data)  # No log gets the output of ``boot``: the administrator's first password is in it.
        else:
            self.log(name, event.data)

    def on_boot_errors(self, event: Any) -> None:
        self._boot_errors = (self._boot_errors + event.data)[-10_000:]
        # This method does not write a refusal, because ``end`` writes it to the terminal.
        if not (self.configuration.log_to_stdout and event.data.startswith(REFUSAL.encode())):
            self.log("boot", event.data)

    def on_backoff(self, event: Any) -> None:
        process = event.process
        if not self.booted and process.backoff >= ATTEMPTS:
            self.end(f"{process.config.name} does not stay up; {self.where(process.config.name)}")
        # Before this event, Supervisor has added 1 to ``backoff`` and begun a pause of that many seconds. So the line
        # below limits the pause after the next failure, not the pause that has begun.
        process.backoff = min(process.backoff, LONGEST_PAUSE[process.group.config.name] - 1)
        self.on_end(process.config.name)

    def on_exit(self, event: Any) -> None:
        name = event.process.config.name
        if name != "boot":
            self.on_end(name)
        elif event.expected:
            self.booted = True
            url = local_url(self.configuration.host, self.configuration.port)
            Watch(url, self.announce, lambda: frozenset(self.down)).start()
        else:
            last = self._boot_errors.decode(errors="replace").rstrip().rpartition("\n")[2]
            if last.startswith(REFUSAL):
                self.end(last.removeprefix(REFUSAL))
            elif event.process.exitstatus < 0:
                self.end("boot was killed before the system was ready; start again")
            else:
                self.end(f"boot failed ({last}); {self.where('boot')}")

    def on_end(self, name: str) -> None:
        if self.booted and name not in self.down:
            self.down.add(name)
            self.announce(f"{name} has ended and is started again; {self.where(name)}")

    def on_running(self, event: Any) -> None:
        name = event.process.config.name
        if name in self.down:
            self.down.remove(name)
            self.announce(f"over: {name} runs again")

    def announce(self, words: str) -> None:
        """Write a message for the operator to the terminal, unless the run is ending."""
        if self.options.mood == SupervisorStates.RUNNING:
            say(f"{REFUSAL}{words}\n", STDERR)

    def where(self, name: str) -> str:
        """Words that tell where the last output of a program is."""
        path = log_path(self.configuration.storage_dir, name)
        return f"its last words are {'above' if self.configuration.log_to_stdout else f'in {path}'}"

    def end(self, reason: str) -> None:
        """End the run as failed."""
        self.announce(reason)
        self.failed = True
        self.options.mood = SupervisorStates.SHUTDOWN


def run(configuration: Configuration, path: os.PathLike[str]) -> int:
    """Run all programs until a signal ends the run, or the first start fails.

    Args:
        configuration: the settings from the environment.
        path: the supervisor configuration.

    Returns:
        The exit status: 0 after a signal, 1 after a failure.

    Raises:
        ConfigurationError: the manager itself cannot start.
    """
    manager = Manager(configuration)
    options = manager.options
    options.realize(["-c", os.fspath(path)])
    options.first, options.test = True, False
    with contextlib.suppress(ExitNow):
        manager.main()
    options.close_httpservers()
    options.close_logger()
    return int(manager.failed)
