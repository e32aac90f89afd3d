from __future__ import annotations

import filecmp
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.system import PROJECT, System, free_port, make_system

__all__ = ["make_system"]

LARGE = os.environ.get("LARGE", str(200 << 20))


def equal(one: Path, other: Path) -> bool:
    """True if two directories have the same files with the same bytes."""
    names = {str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()}
    if names != {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}:
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


class Service:
    """A running installation with keys on, and a key."""

    def __init__(self, system: System, port: int) -> None:
        argv = [sys.executable, "manage.py", "keys", "create", "clients"]
        told = subprocess.run(
            argv, cwd=PROJECT, env=system.environment, check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"key +(\w+)\s+secret +(\w+)", told)
        assert found, told
        self.host = f"127.0.0.1:{port}"
        self.endpoint = f"http://{self.host}"
        self.key, self.secret = found.groups()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment |= {
            "S3_ENDPOINT": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "occ",
            "LARGE": LARGE,
        }
        for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            self.environment.pop(proxy, None)
            self.environment.pop(proxy.lower(), None)

    def client(self) -> Any:
        """A client of boto3, in this process."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="occ",
        )

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"made-{secrets.token_hex(4)}"
        self.client().create_bucket(Bucket=name)
        return name

    def for_rclone(self, folder: Path) -> dict[str, str]:
        """The environment in which rclone knows the service as ``occ``, and keeps its cache in a directory."""
        return {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CACHE_DIR": str(folder / "cache"),
            "RCLONE_CONFIG_OCC_TYPE": "s3",
            "RCLONE_CONFIG_OCC_PROVIDER": "Other",
            "RCLONE_CONFIG_OCC_ENDPOINT": self.endpoint,
            "RCLONE_CONFIG_OCC_ACCESS_KEY_ID": self.key,
            "RCLONE_CONFIG_OCC_SECRET_ACCESS_KEY": self.secret,
            "RCLONE_CONFIG_OCC_REGION": "occ",
        }

    def run(self, *argv: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command, and return its output. The test fails if the command fails."""
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=self.environment | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{argv}:\n{done.stdout[-4000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port = free_port()
    system = System(tmp_path_factory.mktemp("service") / "state", S3_PORT=str(port), AUTH_REQUIRED="true")
    system.start()
    yield Service(system, port)
    system.stop()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(int(LARGE)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    """Make a directory with a number of files, some of them with hard names."""

    def make(files: int) -> Path:
        root = tmp_path / "files"
        for name in ("a b", "a+b", "é/ü", "😀", "100%", "quote'&"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        for number in range(files):
            (root / "many").mkdir(exist_ok=True)
            (root / "many" / f"{number:04}").write_bytes(os.urandom(1000))
        return root

    return make
