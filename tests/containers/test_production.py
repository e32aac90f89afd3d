"""The ``production`` profile: nginx in front of an API that asks for keys, with and without TLS."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from storage.api.wsgi.protection import PROTECTION
from tests.containers.engine import PROJECT, START_LIMIT, Stack, docker
from tests.support.system import wait_until

pytestmark = pytest.mark.containers

MAX_UPLOAD_SIZE = 70 << 20
STALL_TIMEOUT = 4  # Seconds, as the setting of this name.
LARGE = 64 << 20
NGINX_USER = 10042  # This may be any number: no user in the container needs a name.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("certs")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(argv, check=True, capture_output=True)
    folder.chmod(0o755)  # The containers run as other users. Only the owner of the key may read it.
    return folder


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], certificate: Path) -> Stack:
    limits = {"MAX_UPLOAD_SIZE": str(MAX_UPLOAD_SIZE), "STALL_TIMEOUT": str(STALL_TIMEOUT), "HSTS_SECONDS": "86400"}
    for file in certificate.iterdir():
        os.chown(file, NGINX_USER, -1)
    found = make_stack(CERTS=str(certificate), NGINX_USER=str(NGINX_USER), **limits)
    found.compose("--profile", "production", "up", "-d")
    wait_until(lambda: found.journal(found.public_url).ask("/health")[0] == 200, START_LIMIT)
    return found


@pytest.fixture(scope="module")
def key(stack: Stack) -> tuple[str, str]:
    """The id and the secret of a key."""
    told = stack.compose("exec", "-T", "public-api", "python", "manage.py", "keys", "create", "ann")
    found = re.search(r"key +(\w+)\s+secret +(\w+)", told)
    assert found, told
    return found[1], found[2]


@pytest.fixture
def stranger(certificate: Path) -> Iterator[requests.Session]:
    """An HTTP client that trusts the certificate, uses no proxy and has no key."""
    with requests.Session() as found:
        found.trust_env = False
        found.verify = str(certificate / "fullchain.pem")
        yield found


@pytest.fixture
def session(stranger: requests.Session, key: tuple[str, str]) -> requests.Session:
    """An HTTP client that trusts the certificate, uses no proxy and shows a key."""
    stranger.auth = key
    return stranger


def test_port_80_serves(stack: Stack, session: requests.Session) -> None:
    data = os.urandom(10_000_000)
    answer = session.post(f"{stack.public_url}/upload", files={"file": ("plain.bin", data)})
    assert session.get(f"{stack.public_url}/download/{answer.json()['file_hash']}").content == data


def test_without_a_key_nothing_is_served(stack: Stack, stranger: requests.Session) -> None:
    for url in (stack.tls_url, stack.public_url):
        assert stranger.get(f"{url}/files").status_code == 401
        assert stranger.post(f"{url}/upload", files={"file": ("a", b"a")}).status_code == 401
        assert stranger.delete(f"{url}/files/{'0' * 64}").status_code == 401
        assert stranger.get(f"{url}/health").status_code == 200


def test_an_operator_logs_in_with_cookies_that_go_over_tls_only(stack: Stack, stranger: requests.Session) -> None:
    password = re.search(r"user admin, password (\S+)", stack.compose("logs", "--no-color", "prepare"))
    assert password
    page = f"{stack.tls_url}/admin/login/"
    stranger.get(page)
    form = {"username": "admin", "password": password[1], "next": "/admin/"}
    form["csrfmiddlewaretoken"] = stranger.cookies["csrftoken"]
    answer = stranger.post(page, form, headers={"Referer": page})
    assert "Files, objects, nodes, jobs, keys and quotas" in answer.text
    assert {cookie.name: cookie.secure for cookie in stranger.cookies} == {"csrftoken": True, "sessionid": True}


def test_answers_of_the_api_and_of_nginx_are_protected_alike(stack: Stack, session: requests.Session) -> None:
    wanted = {**PROTECTION, "Strict-Transport-Security": "max-age=86400"}

    def told(answer: requests.Response) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name in wanted}

    assert told(session.get(f"{stack.tls_url}/files")) == wanted
    with socket.create_connection(("127.0.0.1", stack.ports["HTTP_PORT"]), 10) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
        head = client.recv(65536).decode()
    assert head.startswith("HTTP/1.1 413")
    assert [line for line in head.splitlines() if line.partition(":")[0] in wanted] == [
        f"{name}: {value}" for name, value in PROTECTION.items()
    ]


def test_a_certificate_that_nginx_cannot_read_stops_it_with_a_line(
    make_stack: Callable[..., Stack], stack: Stack, certificate: Path
) -> None:
    options = ["-e", "API=a", "-v", f"{certificate}:/etc/nginx/certs:ro", "-v", f"{PROJECT}/nginx:/occ:ro"]
    said = docker("run", "--rm", "--user", "4711", *options, "nginx:1.29", "sh", "/occ/start.sh", check=False)
    assert "privkey.pem is closed to the user 4711" in said


def test_a_large_file_goes_through_tls_and_comes_back(stack: Stack, session: requests.Session) -> None:
    data = os.urandom(LARGE)
    begun = time.monotonic()
    answer = session.post(f"{stack.tls_url}/upload", files={"file": ("large.bin", data)})
    sent = time.monotonic()
    assert (answer.status_code, answer.json()["file_hash"]) == (201, hashlib.sha256(data).hexdigest())
    assert session.get(f"{stack.tls_url}/download/{answer.json()['file_hash']}").content == data
    ended = time.monotonic()
    print(f"TLS: {LARGE / (sent - begun) / 2**20:.0f} MiB/s up, {LARGE / (ended - sent) / 2**20:.0f} MiB/s down")


def test_addresses_in_answers_are_those_of_the_client(stack: Stack, session: requests.Session) -> None:
    page = session.get(f"{stack.tls_url}/files?limit=1").json()
    assert page["next"].startswith(f"{stack.tls_url}/files?")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_old_protocols_are_not_spoken(stack: Stack, version: str, spoken: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection(("127.0.0.1", stack.ports["HTTPS_PORT"]), 10) as plain:
        try:
            with context.wrap_socket(plain) as secure:
                found = secure.version() is not None
        except (ssl.SSLError, ConnectionResetError):
            found = False
    assert found == spoken


def test_the_largest_file_fits_and_one_byte_more_does_not(stack: Stack, session: requests.Session) -> None:
    data = os.urandom(MAX_UPLOAD_SIZE)
    fits = session.post(f"{stack.public_url}/upload", files={"file": ("largest.bin", data)})
    assert fits.status_code == 201
    for much in (data + b"1", data + bytes(2 << 20)):  # The API refuses the first body, nginx the second.
        refused = session.post(f"{stack.public_url}/upload", files={"file": ("larger.bin", much)})
        assert refused.status_code == 413, refused.text
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["status"] == 413


def test_nothing_is_spooled_on_the_way(stack: Stack, session: requests.Session) -> None:
    container = stack.containers("nginx")[0]
    largest = session.get(f"{stack.public_url}/files").json()["files"]
    file = next(entry for entry in largest if entry["file_size"] == MAX_UPLOAD_SIZE)
    before = written(container)
    with session.get(f"{stack.public_url}/download/{file['file_hash']}", stream=True) as slow:
        next(slow.iter_content(1 << 20))
        assert written(container) == before
        assert sum(len(piece) for piece in slow.iter_content(1 << 20)) == MAX_UPLOAD_SIZE - (1 << 20)
    body = slow_body(lambda: written(container) == before)
    answer = session.post(
        f"{stack.public_url}/upload",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=a-line-of-its-own"},
    )
    assert answer.status_code == 201, answer.text


def written(container: str) -> set[str]:
    """Return the changes on the container's own file system.

    If nginx has written a body to a temporary file, it may have deleted the file since. The directory of the temporary
    file stays, and is in the result.
    """
    return set(docker("diff", container).splitlines())


def slow_body(is_clean: Callable[[], bool]) -> Iterator[bytes]:
    yield b'--a-line-of-its-own\r\nContent-Disposition: form-data; name="file"; filename="chunked.bin"\r\n\r\n'
    for _ in range(8):
        yield os.urandom(4 << 20)
    assert is_clean()
    yield b"\r\n--a-line-of-its-own--\r\n"


def test_a_client_that_stalls_is_told_and_dropped(stack: Stack, key: tuple[str, str]) -> None:
    form = f"Authorization: Bearer {key[0]}:{key[1]}\r\n".encode()
    form += b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000\r\n\r\n--b"
    with socket.create_connection(("127.0.0.1", stack.ports["HTTP_PORT"]), 10) as client:
        client.settimeout(STALL_TIMEOUT + 15)
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\n" + form)
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer


def test_the_api_learns_who_the_client_is_and_believes_no_claims(stack: Stack, session: requests.Session) -> None:
    claim = {"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    session.get(f"{stack.public_url}/files/{'0' * 64}", headers=claim)
    wait_until(lambda: clients_of(stack, "0" * 64), 10)
    seen_by_nginx = {line["client"] for line in events(stack, "nginx") if "0" * 64 in line.get("request", "")}
    assert clients_of(stack, "0" * 64) == seen_by_nginx
    assert "203.0.113.7" not in seen_by_nginx


def clients_of(stack: Stack, path_part: str) -> set[str]:
    """Return the client addresses in the API's log lines whose request contains ``path_part``."""
    lines = events(stack, "public-api")
    return {line["ip"] for line in lines if path_part in line.get("request", "") and "ip" in line}


def events(stack: Stack, service: str) -> list[dict[str, str]]:
    lines = [line.partition("| ")[2] for line in stack.compose("logs", "--no-color", service).splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_without_an_api_the_answer_says_so(stack: Stack, session: requests.Session) -> None:
    stack.compose("stop", "public-api")
    # For two seconds nginx still uses the address of the stopped container, and a connection to it may end in a 504.
    wait_until(lambda: session.get(f"{stack.public_url}/health").status_code == 503, 30)
    answer = session.get(f"{stack.public_url}/health")
    assert (answer.headers["Content-Type"], answer.headers["Retry-After"]) == ("application/problem+json", "2")
    assert {name: answer.headers[name] for name in PROTECTION} == PROTECTION
    stack.compose("start", "public-api")
    wait_until(lambda: session.get(f"{stack.public_url}/health").status_code == 200, START_LIMIT)


def test_without_a_certificate_there_is_no_tls(stack: Stack, certificate: Path) -> None:
    for file in certificate.iterdir():
        file.rename(file.with_suffix(".away"))
    stack.compose("restart", "nginx")
    journal = stack.journal(stack.public_url)
    wait_until(lambda: journal.ask("/health")[0] == 200, START_LIMIT)
    with (
        pytest.raises(OSError),
        closing(socket.create_connection(("127.0.0.1", stack.ports["HTTPS_PORT"]), 10)) as plain,
    ):
        ssl._create_unverified_context().wrap_socket(plain)
