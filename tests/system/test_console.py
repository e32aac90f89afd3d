"""The console in a real browser: uploads, downloads, deletes, and rules that hold for every page."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tests.support.system import PROJECT, System, free_port

pytestmark = [pytest.mark.system, pytest.mark.browser]

PYTHON = Path(os.environ.get("BROWSER_PYTHON") or PROJECT / ".venv-browser/bin/python")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
VISIT = "tests.browser.visit"
OPERATE = "tests.browser.operate"
STEPS = ["uploaded", "downloaded", "shared", "searched", "renamed", "deleted", "folder", "more", "bucket"]
STEPS += ["without scripts", "lost line", "lost line", "resumed", "paused", "tried again", "every page"]


def png(width: int, height: int) -> bytes:
    """A picture of one colour."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x2f\x9e\x9b" * width) * height
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "archive.bin").write_bytes(os.urandom(12 << 20))
    (tmp_path / "notes.txt").write_text("Several lines of text.\n" * 40)
    (tmp_path / "page.html").write_text("<script>document.title = 'it ran'</script>")
    (tmp_path / "picture.png").write_bytes(png(800, 400))
    (tmp_path / f"{'long' * 60}.txt").write_text("a file with a long name")
    return tmp_path


def visit(system: System, folder: Path, *password: str, program: str = VISIT) -> list[str]:
    """Visit the console, and return the steps that were taken. Fail the test if a page is not as it should be."""
    argv: list[str | Path] = [PYTHON, "-m", program, system.base_url, CHROMIUM, folder, *password]
    run = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["findings"] == []
    steps: list[str] = told["steps"]
    return steps


@pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: `make test-browser` makes it")
@pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")
def test_people_store_find_share_and_delete_files(make_system: Callable[..., System], folder: Path) -> None:
    door = f"http://127.0.0.1:{free_port()}"
    system = make_system(S3_PORT=door.rpartition(":")[2])
    system.start()
    # Keys are off, so no signature is needed.
    for path in ("", *(f"/{key}" for key in ("2026/beach.jpg", "2026/cat\n.jpg", "2026/june/sun.jpg", "a.txt"))):
        put = Request(f"{door}/photos{quote(path)}", path[1:].encode(), method="PUT")
        assert urlopen(put, timeout=30).status == 200
    assert visit(system, folder) == STEPS
    (password,) = re.findall(r"password (\S+)", system.output())
    system.environment["AUTH_REQUIRED"] = "true"
    system.restart()
    assert visit(system, folder, password) == ["logged in"]
    if shots := os.environ.get("SHOTS"):
        shutil.copytree(folder / "shots", shots, dirs_exist_ok=True)


@pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: `make test-browser` makes it")
@pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")
def test_operators_empty_and_add_nodes_and_make_keys(make_system: Callable[..., System], tmp_path: Path) -> None:
    system = make_system(AUTH_REQUIRED="true", CHUNK_SIZE="65536")
    system.start()
    (password,) = re.findall(r"password (\S+)", system.output())
    steps = visit(system, tmp_path, password, program=OPERATE)
    assert steps == ["emptied", "added", "checked", "key", "every page", "without scripts"]
    if shots := os.environ.get("SHOTS"):
        shutil.copytree(tmp_path / "shots", shots, dirs_exist_ok=True)
