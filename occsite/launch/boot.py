"""From databases that run to a system that serves: what ``boot`` does once in every run of the manager."""

from __future__ import annotations

import time
from collections.abc import Iterable

from occsite.launch.preparation import LIMIT, pause, prepare
from occsite.launch.programs import BACKGROUND, FOREGROUND, manager_proxy
from occsite.launch.state import local_url
from occsite.launch.watch import ask
from storage.conf import Configuration

SETTLING = 10.0  # seconds in which the API that answers may still become ready


def boot(configuration: Configuration) -> None:
    """Bring the databases up to date, start the programs, wait for the API, and say so.

    Raises:
        ConfigurationError: a part did not come up, or the cluster does not fit the environment.
    """
    url = local_url(configuration.host, configuration.port)
    prepare(configuration)
    start_programs(configuration, FOREGROUND)
    await_api(url)
    start_programs(configuration, BACKGROUND)
    where = "above" if configuration.log_to_stdout else f"in {configuration.storage_dir}/logs"
    print(f"OCC Storage listens on {url} (Ctrl-C stops it, logs are {where})", flush=True)  # noqa: T201


def start_programs(configuration: Configuration, names: Iterable[str]) -> None:
    """Have the manager start programs that wait for boot."""
    manager = manager_proxy(configuration.storage_dir)
    for name in names:
        manager.supervisor.startProcess(f"application:{name}", False)


def await_api(url: str) -> None:
    """Wait until the API is ready. An API that answers, and goes on to say that something else fails, is left to it:
    whether disks and databases are well is no reason to end the run, and the manager says what is wrong.

    Raises:
        ConfigurationError: the API does not answer.
    """
    begun = time.monotonic()
    while (document := ask(url)) is None or not document.get("ready"):
        if document is not None and time.monotonic() > begun + SETTLING:
            return
        pause(begun + LIMIT, "the API", "/health does not answer")
