"""How long a start waits for PostgreSQL and Redis, and which lines it prints."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import pytest

from occsite.launch.preparation import await_database, await_redis
from storage.exceptions import ConfigurationError

ENCRYPTION_REQUESTS = (80877103, 80877104)  # SSLRequest and GSSENCRequest of PostgreSQL's protocol
CANNOT_CONNECT_NOW = b"SFATAL\0VFATAL\0C57P03\0Mdas Datenbanksystem startet\0\0"
REFUSED_PASSWORD = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0"


class Postgres:
    """A server that knows just enough of PostgreSQL's protocol to refuse connections. The server ends after ``times``
    refusals.

    The server is a process of its own, because no other Python thread can run during libpq's ping.
    """

    def __init__(self, refusal: bytes, times: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.process = get_context("fork").Process(target=self._refuse, args=(refusal, times), daemon=True)
        self.process.start()
        self.listener.close()

    def _refuse(self, refusal: bytes, times: int) -> None:
        for _ in range(times):
            connection, _ = self.listener.accept()
            with connection:
                while self._request(connection) in ENCRYPTION_REQUESTS:
                    connection.sendall(b"N")
                connection.sendall(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)

    @staticmethod
    def _request(connection: socket.socket) -> int:
        length, code = struct.unpack("!ii", connection.recv(8, socket.MSG_WAITALL))
        connection.recv(length - 8, socket.MSG_WAITALL)
        return int(code)


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, int], Postgres]]:
    """Start a server that refuses, and point Django's connection to it."""
    started: list[Postgres] = []

    def start(refusal: bytes, times: int) -> Postgres:
        server = Postgres(refusal, times)
        started.append(server)
        parameters = {"host": "127.0.0.1", "port": server.port, "user": "occ", "dbname": "occ", "password": "hidden"}
        monkeypatch.setattr("occsite.launch.preparation.connection.get_connection_params", lambda: parameters)
        return server

    yield start
    for server in started:
        server.process.kill()
        server.process.join()


def test_a_database_that_is_starting_is_waited_for_and_told_of_once(
    postgres: Callable[[bytes, int], Postgres], capsys: pytest.CaptureFixture[str]
) -> None:
    server = postgres(CANNOT_CONNECT_NOW, 10)
    with pytest.raises(
        ConfigurationError, match=r"PostgreSQL cannot be reached: .*; start it, or correct DATABASE_URL"
    ):
        await_database(limit=0.01)
    server.process.join(10)
    assert server.process.exitcode == 0, "the limit counts from when the server no longer says that it is starting"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("occ-storage: PostgreSQL is still starting: ")


def test_a_refused_password_is_named_and_not_shown(postgres: Callable[[bytes, int], Postgres]) -> None:
    postgres(REFUSED_PASSWORD, 2)
    with pytest.raises(ConfigurationError, match="password authentication failed") as caught:
        await_database(limit=0)
    assert "hidden" not in str(caught.value)


def test_a_start_goes_on_without_redis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("occsite.launch.preparation.settings.REDIS_URL", "redis://:hidden@127.0.0.1:1/0")
    await_redis(limit=0)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("occ-storage: Redis does not serve: ")
    assert "hidden" not in line
