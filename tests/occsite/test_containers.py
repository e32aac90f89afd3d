"""The files for containers agree with the code.

The tests that run containers run seldom. The tests of this file always run, so they are the first to notice a
difference between the files for containers and the code.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from occsite.healthcheck import LIVENESS_LIMIT, ailment
from occsite.launch.programs import commands
from storage.conf import Configuration

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = (PROJECT / "docker-compose.yml").read_text()


def test_compose_runs_every_program() -> None:
    assert set(re.findall(r'"manage.py", "run", "(\w+)"', COMPOSE)) == set(commands(Configuration.from_environment({})))


def test_every_service_of_compose_is_confined() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert "user" in service or service["image"] == "occ-storage", name
    assert "USER occ" in (PROJECT / "Dockerfile").read_text()
    assert "AUTH_REQUIRED:-true" in str(services["public-api"]["environment"]["AUTH_REQUIRED"])
    assert services["nginx"]["environment"]["API"] == "public-api"


def test_every_package_has_hashes() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (PROJECT / name).read_text().replace("\\\n", "").splitlines()
        packages = [line for line in lines if line and not line.startswith("#")]
        assert packages
        assert all("--hash=sha256:" in package for package in packages), name
        wanted = (PROJECT / name).with_suffix(".in").read_text()
        pinned = set(re.findall(r"^([\w-]+(?:\[\w+\])?==\S+)$", wanted, re.MULTILINE))
        told = {package.split(" ")[0].lower() for package in packages}
        assert {re.sub(r"\[\w+\]", "", pin).lower() for pin in pinned} <= told, f"{name}: run `make lock`"
    installing = (PROJECT / "Dockerfile").read_text() + (PROJECT / "Makefile").read_text()
    assert installing.count("--require-hashes") == installing.count("pip install") - 3, (
        "only uv, schemathesis and playwright have none"
    )


def test_nginx_assumes_the_defaults_of_the_api() -> None:
    defaults = Configuration.from_environment({})
    assumed = dict(re.findall(r"\$\{([A-Z_]+):-(\d+)\}", (PROJECT / "nginx" / "start.sh").read_text()))
    assert {name: int(value) for name, value in assumed.items()} == {
        "MAX_UPLOAD_SIZE": defaults.max_upload_size,
        "STALL_TIMEOUT": defaults.stall_timeout,
        "UPLOAD_WAIT": defaults.upload_wait,
        "HSTS_SECONDS": defaults.hsts_seconds,
    }


def test_a_program_is_well_while_it_shows_signs_of_life(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    monkeypatch.setenv("LIVENESS_FILE", str(sign))
    assert ailment() == "no sign of life yet"
    sign.touch()
    assert ailment() is None
    silent_since = time.time() - LIVENESS_LIMIT - 5
    os.utime(sign, (silent_since, silent_since))
    assert str(ailment()).startswith("no sign of life for 6")


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_an_api_is_well_while_its_health_says_so(monkeypatch: pytest.MonkeyPatch, status: int, well: bool) -> None:
    with answering(status) as port:
        monkeypatch.setenv("PORT", str(port))
        assert (ailment() is None) == well
    assert "ConnectionRefusedError" in str(ailment())


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Run a server that answers every request with ``status`` during the ``with`` block. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
