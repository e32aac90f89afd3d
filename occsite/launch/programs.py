"""The programs of one run, and the supervisor configuration that describes them."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from occsite.launch.embedded import postgres_argv, valkey_argv
from occsite.launch.process import dying_with_parent
from occsite.launch.runtime import runtime_dir
from occsite.signature import PROGRAM
from storage.conf import Configuration
from storage.queues import Queue

PROJECT = Path(__file__).resolve().parents[2]
# ``boot`` starts the programs that serve clients first, so that they need not share the processor with the other
# programs while they load.
FOREGROUND = ("api", "worker")
BACKGROUND = ("maintenance",)
MAINTENANCE_PROCESSES = 1  # This process does the jobs; other threads of it run sweeps, probes and reclaim.

FOR_EVER = 10**9  # a number of starts that is never reached


@dataclass(frozen=True)
class Program:
    """One child of the manager, which is killed if it still runs ``stop_within`` seconds after ``stop_signal``."""

    name: str
    argv: list[str]
    stop_signal: str = "TERM"
    stop_within: int = 4
    once: bool = False
    autostart: bool = False

    @property
    def command(self) -> str:
        """``argv`` in one line, which supervisor splits again."""
        return shlex.join(self.argv)


def databases(configuration: Configuration) -> list[Program]:
    """The embedded servers; if the environment names a server, the embedded one is left out."""
    storage_dir = configuration.storage_dir
    found = []
    if not configuration.database_url:
        found.append(Program("postgres", postgres_argv(storage_dir), "INT", autostart=True))
    if not configuration.redis_url:
        found.append(Program("valkey", valkey_argv(storage_dir), autostart=True))
    return found


def application(configuration: Configuration) -> list[Program]:
    """``boot``, which runs once and starts the other programs, and these other programs."""
    boot = _managed([sys.executable, str(PROJECT / "manage.py"), "boot"])
    return [
        Program("boot", boot, "KILL", once=True, autostart=True),
        *(Program(name, _managed(argv)) for name, argv in commands(configuration).items()),
    ]


def commands(configuration: Configuration) -> dict[str, list[str]]:
    """The programs of the system except its databases: name → command.

    Under ``manage.py serve`` these programs are children of one manager; in ``docker-compose.yml`` each has its own
    container.
    """
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:occsite.server.gunicorn_conf"]
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "occsite"]
    return {
        "api": [*gunicorn, "occsite.wsgi:application"],
        "worker": [*celery, "worker", *_consuming(Queue.INGEST, configuration.ingest_workers)],
        "maintenance": [*celery, "worker", *_consuming(Queue.MAINTENANCE, MAINTENANCE_PROCESSES)],
    }


def programs(configuration: Configuration) -> list[Program]:
    """All programs of a run."""
    return [*databases(configuration), *application(configuration)]


def supervisor_configuration(configuration: Configuration) -> str:
    """The text of the supervisor configuration. The groups stop one after the other, the last group first.

    The text has no path outside the runtime directory: the manager sets the commands when it has read the text.
    """
    runtime = runtime_dir(configuration.storage_dir)
    groups = {"databases": databases(configuration), "application": application(configuration)}
    sections = [
        _section(
            "supervisord", nodaemon="true", logfile="/dev/null", pidfile=runtime / "manager.pid", nocleanup="true"
        ),
        _section("unix_http_server", file=control_socket(configuration.storage_dir), chmod="0700"),
        _section(
            "rpcinterface:supervisor",
            **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
    ]
    for priority, (group, members) in enumerate(groups.items()):
        if members:
            names = ",".join(program.name for program in members)
            sections.append(_section(f"group:{group}", programs=names, priority=priority))
            sections += [_program_section(program) for program in members]
    return "\n".join(sections)


def log_path(storage_dir: Path, program: str) -> Path:
    """Where the output of ``program`` goes, unless LOG_TO says standard output."""
    return storage_dir / "logs" / f"{program}.log"


def control_socket(storage_dir: Path) -> Path:
    """The socket on which the manager of ``storage_dir`` accepts commands."""
    return runtime_dir(storage_dir) / "manager.sock"


def manager_proxy(storage_dir: Path) -> ServerProxy:
    """The running manager of ``storage_dir``; its methods are those of supervisor's XML-RPC interface."""
    transport = SupervisorTransport(None, None, f"unix://{control_socket(storage_dir)}")
    return ServerProxy("http://manager", transport=transport)


def _managed(argv: list[str]) -> list[str]:
    return dying_with_parent(signal.SIGKILL, argv)


def _consuming(queue: Queue, processes: int) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["-Q", queue.value, "--concurrency", str(processes), "-n", f"{queue}@%h", "--loglevel", "INFO", *quiet]


def _program_section(program: Program) -> str:
    # The manager writes the log files: supervisor's own writers do not survive a full disk.
    options: dict[str, object] = {
        "command": program.name,
        "environment": f'{PROGRAM}="{program.name}"',
        "autostart": str(program.autostart).lower(),
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_within,
        "killasgroup": "true",
        "stdout_logfile": "NONE",
        "stdout_events_enabled": "true",
    }
    if program.once:
        options |= {"autorestart": "false", "startsecs": 0, "exitcodes": 0}
        options |= {"stderr_logfile": "NONE", "stderr_events_enabled": "true"}
    else:
        # Supervisor starts a program again without a pause, unless the program has ended within startsecs. A failing
        # import, and gunicorn's attempts to listen on a port that is taken, end within this time.
        options |= {"autorestart": "true", "startsecs": 10, "startretries": FOR_EVER, "redirect_stderr": "true"}
    return _section(f"program:{program.name}", **options)


def _section(title: str, /, **options: object) -> str:
    lines = [f"{name} = {value}" for name, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])
