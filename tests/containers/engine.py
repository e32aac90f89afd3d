"""Commands for the real Docker engine, as an operator types them. Each stack has its own name and its own ports."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.faults.journal import Journal
from tests.support.system import free_port

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = "occ-storage"
START_LIMIT = 120.0  # Seconds for the containers to start.


def docker(*arguments: str, check: bool = True) -> str:
    """Run a docker command and return its output, standard error included."""
    return _run(["docker", *arguments], check=check)


def inspect(container: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(docker("inspect", container))[0])


def pid_of(container: str) -> int:
    """Return the pid of the container's first process, as the host numbers it."""
    return int(inspect(container)["State"]["Pid"])


def crash(container: str) -> None:
    """Send SIGKILL to the container's first process, from the host.

    The engine takes a SIGKILL from the host for a crash, and starts the container again. After ``docker kill`` the
    engine would not start the container again.
    """
    os.kill(pid_of(container), signal.SIGKILL)


class Stack:
    """One compose project.

    ``files`` are compose files in addition to ``docker-compose.yml``. ``environment`` has variables in addition to
    those of this process.
    """

    def __init__(self, name: str, files: Sequence[str] = (), env_file: Path | None = None, **environment: str) -> None:
        self.name = name
        self.ports = {"PORT": free_port(), "HTTP_PORT": free_port(), "HTTPS_PORT": free_port()}
        self.ports |= {"S3_PORT": free_port(), "S3_HTTP_PORT": free_port(), "S3_HTTPS_PORT": free_port()}
        self.options = [word for file in ("docker-compose.yml", *files) for word in ("-f", file)]
        self.options += ["--env-file", str(env_file)] if env_file else []
        self.environment = {**environment, "NGINX_ADDRESS": "127.0.0.1"}
        self.environment |= {variable: str(port) for variable, port in self.ports.items()}
        self.base_url = f"http://127.0.0.1:{self.ports['PORT']}"
        self.public_url = f"http://127.0.0.1:{self.ports['HTTP_PORT']}"
        self.tls_url = f"https://127.0.0.1:{self.ports['HTTPS_PORT']}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a docker-compose command and return its output, standard error included."""
        argv = [*compose_command(), "-p", self.name, "--project-directory", str(PROJECT), *self.options, *arguments]
        return _run(argv, self.environment, check=check)

    def up(self, *arguments: str) -> None:
        self.compose("up", "-d", *arguments)

    def down(self) -> None:
        self.compose("--profile", "production", "down", "-v", "--remove-orphans", "-t", "5", check=False)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return docker("ps", "-q", "--no-trunc", *self._labelled(service)).split()

    def all_containers(self) -> list[dict[str, Any]]:
        """Inspect all containers of this project, running or not."""
        ids = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}").split()
        return [inspect(container) for container in ids]

    def journal(self, base_url: str = "") -> Journal:
        return Journal(base_url or self.base_url)

    def is_serving(self) -> bool:
        status, body = self.journal().ask("/health")
        return status == 200 and body["ready"] is True

    def _labelled(self, service: str) -> list[str]:
        labels = {"project": self.name, "service": service}
        return [
            word
            for label, value in labels.items()
            for word in ("--filter", f"label=com.docker.compose.{label}={value}")
        ]


def compose_command() -> list[str]:
    """Return ``docker-compose``, or the command in COMPOSE, such as ``docker compose`` where compose is a plugin."""
    return shlex.split(os.environ.get("COMPOSE", "docker-compose"))


def _run(argv: list[str], environment: dict[str, str] | None = None, *, check: bool = True) -> str:
    done = subprocess.run(
        argv,
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or not check, f"{shlex.join(argv)}: status {done.returncode}\n{done.stdout}"
    return done.stdout
