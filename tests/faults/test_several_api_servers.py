"""Resumable uploads behind nginx, which spreads the requests over two API servers with one staging directory."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from occsite.launch.process import dying_with_parent
from occsite.launch.programs import commands
from storage.conf import Configuration
from tests.support.installation import bytes_of
from tests.support.resuming import PATIENCE, Client
from tests.support.system import PROJECT, System, free_port, make_system, wait_until

__all__ = ["make_system"]

pytestmark = [pytest.mark.system, pytest.mark.faults]

MIB = 1 << 20
INTERRUPTIONS = 50
NGINX = shutil.which("nginx") or ""


@contextmanager
def running(argv: list[str], environment: dict[str, str], output: Path) -> Iterator[None]:
    """Run a program, and end it by its process id."""
    with output.open("ab") as log:
        process = subprocess.Popen(
            dying_with_parent(signal.SIGKILL, argv),
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()


def proxy_configuration(port: int, apis: list[int], folder: Path) -> str:
    """The configuration of the repository with two API servers, and with all files in a directory of the test."""
    text = (PROJECT / "nginx/nginx.conf").read_text()
    limits = {"BODY_LIMIT": 1 << 30, "S3_BODY_LIMIT": 1 << 30}
    values = {"API": "apis", **limits, "SILENCE": 65, "ANSWER": 120, "HSTS_SECONDS": 0}
    text = re.sub(r"\$\{(\w+)\}", lambda found: str(values[found[1]]), text)
    text = text.replace("/tmp/", f"{folder}/")
    servers = " ".join(f"server 127.0.0.1:{api};" for api in apis)
    text = text.replace("    server {\n", f"    upstream apis {{ {servers} }}\n    server {{\n", 1)
    text = text.replace("http://apis:5000", "http://apis")
    text = text.replace("listen 8081", f"listen 127.0.0.1:{free_port()}")  # No client uses the S3 door here.
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/dev/stdout", f"{folder}/access.log")
    shutil.copy(PROJECT / "nginx/protection.conf", folder)
    return text


def answers(port: int) -> bool:
    try:
        opener = build_opener(ProxyHandler({}))
        return bool(opener.open(f"http://127.0.0.1:{port}/health", timeout=5).status == 200)
    except OSError:
        return False


@pytest.mark.skipif(not NGINX, reason="no nginx: apt-get install nginx")
def test_fifty_interruptions_behind_nginx_and_two_servers_lose_nothing(
    make_system: Callable[..., System], chance: random.Random, tmp_path: Path
) -> None:
    system = make_system(STALL_TIMEOUT="60")
    system.start()
    second, port = free_port(), free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(proxy_configuration(port, [system.port, second], tmp_path))
    api = commands(Configuration.from_environment(system.environment))["api"]
    nginx = [NGINX, "-c", str(configuration), "-g", "daemon off;"]
    with (
        running(api, system.environment | {"PORT": str(second)}, tmp_path / "second"),
        running(nginx, dict(system.environment), tmp_path / "nginx"),
    ):
        wait_until(lambda: answers(second) and answers(port), PATIENCE, (tmp_path / "nginx").read_text)
        client = Client(port, system.storage_dir / "staging", bytes_of("behind nginx", 48 * MIB + 4321))
        hanging = client.suffer(INTERRUPTIONS, chance)
        client.check_the_file()
        for connection in hanging:
            connection.close()
        print(f"{INTERRUPTIONS} interruptions, the slowest answer after {client.slowest:.2f} s")
    served = re.findall(r'"request":"(?:HEAD|PATCH) .*"api":"127.0.0.1:(\d+)"', (tmp_path / "access.log").read_text())
    counts = {server: served.count(str(server)) for server in (system.port, second)}
    print(f"requests by server: {counts}")
    assert min(counts.values()) > INTERRUPTIONS // 2, "both servers took part"
