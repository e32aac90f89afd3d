"""Statements of the README about curl, tested with curl and a real system."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import System, make_system, system

__all__ = ["make_system", "system"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine"),
]

SIZE = 3_000_001


def curl(*arguments: object, stdin: bytes | None = None) -> tuple[int, bytes]:
    """Run curl; returns the status and the body. The body is empty if curl wrote it to a file."""
    argv = [
        "curl",
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
        "--write-out",
        "%{stderr}%{http_code}",
    ]
    done = subprocess.run([*argv, *map(str, arguments)], input=stdin, capture_output=True, check=True)
    return int(done.stderr), done.stdout


def uploaded(answer: tuple[int, bytes]) -> Any:
    status, body = answer
    assert status == 201, body
    return json.loads(body)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curl") / "big file.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(scope="module")
def url(system: System, source: Path) -> str:
    """The address of a file that ``curl -T`` has uploaded under its own name."""
    body = uploaded(curl("-T", source, f"{system.base_url}/upload/"))
    assert (body["file_name"], body["file_size"]) == (source.name, SIZE)
    assert body["file_hash"] == hashlib.sha256(source.read_bytes()).hexdigest()
    return f"{system.base_url}/download/{body['file_hash']}"


def test_a_stream_of_unknown_length_is_a_file(system: System) -> None:
    for path, name in (("", ""), ("from%20stdin.txt?replication_factor=2", "from stdin.txt")):
        data = os.urandom(1_000_000)
        body = uploaded(curl("-T", "-", f"{system.base_url}/upload/{path}", stdin=data))
        assert body["file_hash"] == hashlib.sha256(data).hexdigest()
        assert body["file_name"] == name or body["file_hash"]
        assert body["replication_factor"] == (2 if path else 3)


def test_a_digest_is_checked(system: System) -> None:
    data = os.urandom(1000)
    for claim, status in ((b"other", 400), (data, 201)):
        digest = base64.b64encode(hashlib.sha256(claim).digest()).decode()
        header = ("-H", f"Repr-Digest: sha-256=:{digest}:")
        assert curl("-T", "-", *header, f"{system.base_url}/upload/x", stdin=data)[0] == status


def test_an_upload_cannot_be_resumed_and_says_so(system: System, source: Path) -> None:
    assert curl("-C", 1000, "-T", source, f"{system.base_url}/upload/x")[0] == 400


def test_a_part_is_a_slice(url: str, source: Path) -> None:
    data = source.read_bytes()
    assert curl("-r", "100-199", url) == (206, data[100:200])
    assert curl("-r", "-100", url) == (206, data[-100:])
    assert curl("-r", SIZE, url)[0] == 416
    status, body = curl("-r", "0-9,2000000-2000009", url)
    assert status == 206
    assert data[:10] in body
    assert data[2_000_000:2_000_010] in body


def test_a_download_is_resumed(url: str, source: Path, tmp_path: Path) -> None:
    target, data = tmp_path / "target", source.read_bytes()
    for begun in (0, 1, 262_144, SIZE - 1):
        target.write_bytes(data[:begun])
        assert curl("-C", "-", "-o", target, url)[0] == (206 if begun else 200)
        assert target.read_bytes() == data
    # The local file is already whole, so curl asks for a range that begins at its end.
    assert curl("-C", "-", "-o", target, url)[0] == 416
    assert target.read_bytes() == data


def test_what_is_known_is_not_sent_again(url: str, source: Path, tmp_path: Path) -> None:
    etag, target = tmp_path / "etag", tmp_path / "target"
    assert curl("--etag-save", etag, "-o", target, url)[0] == 200
    target.unlink()
    assert curl("--etag-compare", etag, "-o", target, url)[0] == 304
    assert not target.exists() or not target.read_bytes()


def test_answers_without_a_body_leave_the_connection_usable(url: str, source: Path) -> None:
    """The lengths of the answers are right, so curl finds where the next answer on the connection begins."""
    etag = url.rpartition("/")[2]
    known, head = ("-H", f'If-None-Match: "{etag}"', url), ("-I", url)
    part = ("-r", "5-9", url)
    status = ("--silent", "--noproxy", "*", "--write-out", "%{stderr}%{http_code} %{num_connects},")
    argv = ["curl", *status, *known, "--next", *status, *part, "--next", *status, *head, "--next", *status, *part]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stderr == b"304 1,206 0,200 0,206 0,"
    assert done.stdout.startswith(source.read_bytes()[5:10])
    assert done.stdout.endswith(source.read_bytes()[5:10])


NAMES = {
    "日.txt": "{hash}.txt",
    "Übersicht 2024.pdf": "Ubersicht 2024.pdf",
    "research&notes.txt": "research&notes.txt",
    "back\\slash.txt": "back_slash.txt",
    'say "hi".txt': "say _hi_.txt",
}


def test_a_file_keeps_its_name_and_curl_that_reads_ascii_alone_its_extension(system: System, tmp_path: Path) -> None:
    for name, otherwise in NAMES.items():
        source = tmp_path / name
        source.write_bytes(os.urandom(10))
        quoted = str(source).replace("\\", "\\\\").replace('"', '\\"')
        body = uploaded(curl("-F", f'file=@"{quoted}"', f"{system.base_url}/upload"))
        assert body["file_name"] == name
        target = tmp_path / otherwise.format(hash=body["file_hash"])
        folder = tmp_path / body["file_hash"]
        folder.mkdir()
        curl("--output-dir", folder, "-OJ", f"{system.base_url}/download/{body['file_hash']}")
        assert [path.name for path in folder.iterdir()] == [target.name]


@pytest.mark.skipif(shutil.which("wget") is None, reason="there is no wget on this machine")
def test_wget_takes_the_name_from_the_address_and_fetches_what_is_newer(url: str, source: Path, tmp_path: Path) -> None:
    argv = ["wget", "--no-proxy", "--no-verbose", "--restrict-file-names=nocontrol", "-N", f"{url}/%E6%97%A5.bin"]
    target = tmp_path / "日.bin"
    said = []
    for _ in range(2):
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        said.append(subprocess.run(argv, cwd=tmp_path, env=environment, check=True, capture_output=True).stderr)
        assert list(tmp_path.iterdir()) == [target]
        assert target.read_bytes() == source.read_bytes()
    assert [b"->" in words for words in said] == [True, False], said
