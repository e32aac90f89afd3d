"""A separate installation for the benchmark, and a client of it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

PROJECT = Path(__file__).resolve().parent.parent.parent
START_LIMIT = 120.0  # Seconds for the system to become ready.
TIMEOUT = 120.0  # Seconds for one answer.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")


class Failure(Exception):
    """An operation that is measured has failed."""


class Client:
    """A client of an installation, with one connection that is kept open."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._headers = {"Cookie": cookie} if cookie else {}

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request, and return the body of the answer.

        Raises:
            Failure: the status of the answer is 300 or above.
        """
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise Failure(f"{method} {path} answers {response.status}: {answer[:300]!r}")
        return answer

    def cookie_of(
        self, method: str, path: str, name: str, body: str = "", headers: dict[str, str] | None = None
    ) -> str:
        """Send a request, and return the value of the cookie ``name`` that the answer sets."""
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        response.read()
        found = re.search(rf"{name}=([^;]+)", " ".join(response.headers.get_all("Set-Cookie", [])))
        if found is None:
            raise Failure(f"{path} sets no {name}")
        return found[1]

    def get(self, path: str) -> dict[str, Any]:
        return dict(json.loads(self.ask("GET", path)))

    def upload(self, name: str, size: int) -> str:
        """Upload ``size`` random bytes, and return their hash."""
        answer = json.loads(self.ask("PUT", f"/upload/{quote(name)}", secrets.token_bytes(size)))
        return str(answer["file_hash"])


@dataclass(frozen=True)
class Installation:
    """A running system.

    Attributes:
        port: the port on which the system listens.
        state: the directory of the system's state (STORAGE_DIR).
        password: the password of the user ``admin``.
    """

    port: int
    state: Path
    password: str

    def log_in(self) -> Client:
        """Log in to the admin, and return a client with that session."""
        client = Client(self.port)
        token = client.cookie_of("GET", "/admin/login/", "csrftoken")
        form = urlencode({"username": "admin", "password": self.password, "csrfmiddlewaretoken": token})
        headers = {"Cookie": f"csrftoken={token}", "Content-Type": "application/x-www-form-urlencoded"}
        session = client.cookie_of("POST", "/admin/login/", "sessionid", form, headers)
        return Client(self.port, f"sessionid={session}")


@contextmanager
def installation() -> Iterator[Installation]:
    """Run the whole system on an empty directory of the project's disk.

    Audits and censuses are off: they would find that most chunks on record are on no volume.
    """
    (PROJECT / "var").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="growth-", dir=PROJECT / "var"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment |= {"STORAGE_DIR": str(folder / "state"), "HOST": "127.0.0.1", "PORT": str(port), "S3_PORT": "0"}
    environment |= {"AUDIT_INTERVAL": "0", "CENSUS_INTERVAL": "0"}
    argv = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, str(PROJECT / "manage.py"), "serve"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        password = _await_ready(port, process, folder / "output")
        yield Installation(port, folder / "state", password)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)


def _await_ready(port: int, process: subprocess.Popen[bytes], output: Path) -> str:
    """Wait until the API is ready and the sketches of the new nodes are built; return the administrator's password."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            client = Client(port)
            # The API may answer before the password is printed.
            said = re.search(r"password (\S+)", output.read_text())
            is_ready = client.get("/health")["ready"] and client.get("/status")["network"]["sketches"] == "trusted"
            if said and is_ready:
                return said[1]
        except (Failure, HTTPException, OSError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"the system does not become ready:\n{output.read_text()}")
        time.sleep(0.2)
