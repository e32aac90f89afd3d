"""The programs of one run, and the supervisor configuration that describes them."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from occsite.embedded import postgres_argv, valkey_argv
from occsite.process import dying_with_parent
from occsite.runtime import runtime_dir
from storage.conf import Configuration

PROJECT = Path(__file__).resolve().parent.parent
# Started by boot: what serves clients first, so that the rest does not take the processor from it while it loads.
FOREGROUND = ("api", "worker")
BACKGROUND = ("maintenance",)
MAINTENANCE_PROCESSES = 1  # jobs; sweeps, probes and reclaim run in threads beside them


@dataclass(frozen=True)
class Program:
    """One child of the manager. ``stop_within`` is in seconds; whoever is not gone by then is killed."""

    name: str
    argv: list[str]
    stop_signal: str = "TERM"
    stop_within: int = 4
    once: bool = False
    autostart: bool = False


def databases(configuration: Configuration) -> list[Program]:
    """The embedded servers: those the environment names no server for."""
    storage_dir = configuration.storage_dir
    found = []
    if not configuration.database_url:
        found.append(Program("postgres", postgres_argv(storage_dir), "INT", autostart=True))
    if not configuration.redis_url:
        found.append(Program("valkey", valkey_argv(storage_dir), autostart=True))
    return found


def application(configuration: Configuration) -> list[Program]:
    """``boot``, which runs once and starts the others, and those others."""
    boot = _managed([sys.executable, str(PROJECT / "manage.py"), "boot"])
    return [
        Program("boot", boot, "KILL", once=True, autostart=True),
        *(Program(name, _managed(argv)) for name, argv in commands(configuration).items()),
    ]


def commands(configuration: Configuration) -> dict[str, list[str]]:
    """The programs that make the system on top of its databases, by name: here children of one manager, in
    ``docker-compose.yml`` a container each."""
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "occsite"]
    return {
        "api": [sys.executable, "-m", "gunicorn", "-c", "python:occsite.gunicorn_conf", "occsite.wsgi:application"],
        "worker": [*celery, "worker", *_consuming("ingest", configuration.ingest_workers)],
        "maintenance": [*celery, "worker", *_consuming("maintenance", MAINTENANCE_PROCESSES)],
    }


def supervisor_configuration(configuration: Configuration) -> str:
    """The text of the supervisor configuration. The last group stops first, each as a whole."""
    storage_dir = configuration.storage_dir
    runtime = runtime_dir(storage_dir)
    groups = {"databases": databases(configuration), "application": application(configuration)}
    sections = [
        _section(
            "supervisord",
            nodaemon="true",
            silent=str(not configuration.log_to_stdout).lower(),
            logfile="/dev/null" if configuration.log_to_stdout else storage_dir / "logs" / "manager.log",
            pidfile=runtime / "manager.pid",
            childlogdir=storage_dir / "logs",
        ),
        _section("unix_http_server", file=control_socket(storage_dir), chmod="0700"),
        _section(
            "rpcinterface:supervisor",
            **{"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
    ]
    for priority, (group, programs) in enumerate(groups.items()):
        if programs:
            names = ",".join(program.name for program in programs)
            sections.append(_section(f"group:{group}", programs=names, priority=priority))
            sections += [_program_section(program, configuration) for program in programs]
    return "\n".join(sections)


def log_path(storage_dir: Path, program: str) -> Path:
    """Where the output of ``program`` goes, unless LOG_TO says standard output."""
    return storage_dir / "logs" / f"{program}.log"


def control_socket(storage_dir: Path) -> Path:
    """The socket on which the manager of ``storage_dir`` takes orders."""
    return runtime_dir(storage_dir) / "manager.sock"


def manager_proxy(storage_dir: Path) -> ServerProxy:
    """The running manager of ``storage_dir``; its methods are those of supervisor's XML-RPC interface."""
    transport = SupervisorTransport(None, None, f"unix://{control_socket(storage_dir)}")
    return ServerProxy("http://manager", transport=transport)


def _managed(argv: list[str]) -> list[str]:
    return dying_with_parent(signal.SIGKILL, argv)


def _consuming(queue: str, processes: int) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["-Q", queue, "--concurrency", str(processes), "-n", f"{queue}@%h", "--loglevel", "INFO", *quiet]


def _program_section(program: Program, configuration: Configuration) -> str:
    log = log_path(configuration.storage_dir, program.name)
    relayed = {"stdout_logfile": "NONE", "stdout_events_enabled": "true"}  # the manager prints what comes
    options: dict[str, object] = {
        "command": shlex.join(program.argv),
        "directory": PROJECT,
        "autostart": str(program.autostart).lower(),
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_within,
        "killasgroup": "true",
    }
    if program.once:
        # What it prints is for the terminal alone: the first password of the administrator is part of it.
        options |= {"autorestart": "false", "startsecs": 0, "exitcodes": 0}
        options |= {**relayed, "stderr_logfile": log}
    else:
        # startsecs is longer than an import that fails, and than gunicorn's attempts to listen on a port that is
        # taken: a program that ends later than that would be started again for ever.
        options |= {"autorestart": "true", "startsecs": 10, "startretries": 4}
        kept = {"stdout_logfile": log, "stdout_logfile_maxbytes": "10MB", "stdout_logfile_backups": 3}
        options |= {"redirect_stderr": "true", **(relayed if configuration.log_to_stdout else kept)}
    return _section(f"program:{program.name}", **options)


def _section(title: str, /, **options: object) -> str:
    lines = [f"{name} = {str(value).replace('%', '%%')}" for name, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])
