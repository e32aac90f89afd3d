"""The program ``boot``: it prepares the databases and starts the other programs, once in every run of the manager."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from occsite.launch.preparation import LIMIT, pause, prepare, show_step
from occsite.launch.programs import BACKGROUND, FOREGROUND, PROJECT, manager_proxy
from occsite.launch.state import is_loopback, local_url
from occsite.launch.watch import ask
from storage.conf import VERSION, Configuration

SETTLING = 10.0  # For this many seconds, ``boot`` waits for an API that answers to become ready.


def boot(configuration: Configuration) -> None:
    """Bring the databases up to date, start the programs, wait for the API, and print where it listens.

    Raises:
        ConfigurationError: a database or the API did not come up, or the environment variables do not fit the stored
            cluster.
    """
    url = local_url(configuration.host, configuration.port)
    administrator = prepare(configuration)
    show_step("starting the API and the workers")
    start_programs(configuration, FOREGROUND)
    await_api(url)
    start_programs(configuration, BACKGROUND)
    print("\n".join(box(welcome(url, configuration, administrator))), flush=True)  # noqa: T201


def welcome(url: str, configuration: Configuration, administrator: str | None = None) -> list[str]:
    """The lines about addresses, logs and the first steps for the person who has started the service."""
    logs = "above" if configuration.log_to_stdout else f"{configuration.storage_dir}/logs"
    return [
        f"OCC Storage listens on {url}",
        f"version   {VERSION}",
        f"page      {url}/",
        f"admin     {url}/admin/" + (f"  {administrator}" if administrator else ""),
        *([f"S3        {local_url(configuration.host, configuration.s3_port)}"] if configuration.s3_port else []),
        f"keys      {_keys(configuration)}",
        f"upload    curl {'-u KEY:SECRET ' * configuration.auth_required}-F file=@example.pdf {url}/upload",
        f"logs      {logs}",
        "stop      Ctrl-C",
    ]


def _keys(configuration: Configuration) -> str:
    if configuration.auth_required:
        return f"on; make one: {_python()} manage.py keys create NAME"
    if is_loopback(configuration.host):
        return "off; AUTH_REQUIRED=true switches them on"
    return "OFF: whoever reaches this port can delete everything; set AUTH_REQUIRED=true"


def _python() -> str:
    """The command that runs this Python in the project's directory."""
    program = Path(sys.executable)
    return str(program.relative_to(PROJECT)) if program.is_relative_to(PROJECT) else "python"


def box(lines: Sequence[str]) -> list[str]:
    """The lines with a frame around them."""
    width = max(map(len, lines))
    rule = f"+{'-' * (width + 2)}+"
    return [rule, *(f"| {line:<{width}} |" for line in lines), rule]


def start_programs(configuration: Configuration, names: Iterable[str]) -> None:
    """Tell the manager to start programs, which have waited for ``boot``."""
    manager = manager_proxy(configuration.storage_dir)
    for name in names:
        manager.supervisor.startProcess(f"application:{name}", False)


def await_api(url: str) -> None:
    """Wait until the API is ready.

    If the API answers but says that another part fails, the wait ends without an error after ``SETTLING``: a bad disk
    or database is no reason to end the run, and the manager reports the trouble.

    Raises:
        ConfigurationError: the API does not answer.
    """
    begun = time.monotonic()
    while (document := ask(url)) is None or not document.get("ready"):
        if document is not None and time.monotonic() > begun + SETTLING:
            return
        pause(begun + LIMIT, "the API", "/health does not answer")
