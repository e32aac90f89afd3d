"""From databases that run to a system that serves: what ``boot`` does once in every run of the manager."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from occsite.preparation import LIMIT, in_a_line, pause, prepare
from occsite.programs import BACKGROUND, FOREGROUND, manager_proxy
from occsite.state import local_url
from storage.conf import Configuration


def boot(configuration: Configuration) -> None:
    """Bring the databases up to date, start the programs, wait until the API is ready, and say so.

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
    """Wait until the API says that it is ready.

    Raises:
        ConfigurationError: it does not.
    """
    deadline = time.monotonic() + LIMIT
    while (answer := _health(url)) != "ready":
        pause(deadline, "the API", answer)


def _health(url: str) -> str:
    """``ready``, or why not."""
    server = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        server.request("GET", "/health")
        response = server.getresponse()
        body = response.read()
        if response.status != 200:
            return f"/health answers {response.status}"
        return "ready" if json.loads(body).get("ready") is True else f"/health answers {body.decode()[:200]}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return in_a_line(error)
    finally:
        server.close()
