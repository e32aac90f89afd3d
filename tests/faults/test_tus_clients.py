"""Clients of tus that others wrote, against the real system. The clients are installed outside the repository.

``TUS_CLIENTS`` is a directory with a virtual environment (``python -m venv``, ``pip install tuspy aiotus``) and with
``node_modules`` (``npm install tus-js-client@4.3.1``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.support.installation import bytes_of
from tests.support.system import System, make_system, wait_until

__all__ = ["make_system"]

pytestmark = [pytest.mark.system, pytest.mark.faults]

MIB = 1 << 20
FOLDER = os.environ.get("TUS_CLIENTS", "")

TUSPY = """
import sys
from tusclient.client import TusClient
endpoint, path = sys.argv[1:]
client = TusClient(endpoint)
first = client.uploader(path, chunk_size=1 << 20, upload_checksum=True, metadata={"filename": "tuspy"})
first.upload(stop_at=3 << 20)
second = client.uploader(path, url=first.url, chunk_size=2 << 20, upload_checksum=True)
assert second.offset == 3 << 20, second.offset
second.upload()
"""
AIOTUS = """
import asyncio, sys, aiotus
endpoint, path = sys.argv[1:]
with open(path, "rb") as file:
    assert asyncio.run(aiotus.upload(endpoint, file, {"filename": b"aiotus"}, chunksize=2 << 20))
"""
TUS_JS = """
const tus = require('tus-js-client'), fs = require('fs')
const [endpoint, path, options] = process.argv.slice(1)
const upload = new tus.Upload(fs.readFileSync(path), {
  endpoint, chunkSize: 2 << 20, metadata: { filename: 'tus-js-client' }, ...JSON.parse(options),
  onError: (error) => { console.error(error); process.exit(1) },
})
upload.start()
"""
OPTIONS = (
    '{"protocol": "tus-v1"}',
    '{"protocol": "tus-v1", "uploadDataDuringCreation": true}',
    '{"protocol": "tus-v1", "uploadLengthDeferred": true, "overridePatchMethod": true}',
    '{"protocol": "tus-v1", "parallelUploads": 3}',
    '{"protocol": "ietf-draft-05"}',
    '{"protocol": "ietf-draft-05", "uploadDataDuringCreation": true}',
)


@pytest.fixture(scope="module")
def system(make_system: Callable[..., System]) -> System:
    if not FOLDER:
        pytest.skip("TUS_CLIENTS names no folder with the clients of others: see the head of this file")
    found = make_system()
    found.start()
    return found


def run(system: System, argv: list[str], label: str, path: Path) -> None:
    """Let a client upload bytes of its own, and compare what was stored."""
    data = bytes_of(label, 7 * MIB + 11)
    path.write_bytes(data)
    argv = [*argv[:3], f"{system.base_url}/uploads/", str(path), *argv[3:]]
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    ended = subprocess.run(argv, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    opener = build_opener(ProxyHandler({}))
    address = f"{system.base_url}/download/{hashlib.sha256(data).hexdigest()}"

    def is_stored() -> bool:
        try:
            return bool(opener.open(address, timeout=60).read() == data)
        except OSError:
            return False

    wait_until(is_stored, 60)


@pytest.mark.parametrize("code", [TUSPY, AIOTUS], ids=["tuspy", "aiotus"])
def test_a_client_in_python(system: System, code: str, tmp_path: Path) -> None:
    python = Path(FOLDER) / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is missing")
    run(system, [str(python), "-c", code], code, tmp_path / "body")


@pytest.mark.parametrize("options", OPTIONS)
def test_tus_js_client(system: System, options: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (Path(FOLDER) / "node_modules" / "tus-js-client").is_dir():
        pytest.skip("node or its package tus-js-client is missing")
    run(system, [node, "-e", TUS_JS, options], options, tmp_path / "body")
