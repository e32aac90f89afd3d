"""The server gives up a client that is silent for too long, and no other client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from occsite.server.steady_socket import SteadySocket
from storage.api.wsgi import transfers
from storage.api.wsgi.transfers import WAITS, Slot, transfer

SILENCE = 1.0
# The segment size of the loopback network. The client's kernel announces free room in steps of this size.
MSS = 64 << 10


@pytest.fixture(autouse=True)
def no_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this thread hold no transfer slot, even if an earlier test has left one taken."""
    monkeypatch.setattr(transfers, "_thread", transfers._Thread())


@pytest.fixture
def pair() -> Iterator[tuple[SteadySocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with client, SteadySocket(accepted, SILENCE) as server:
        server.setblocking(True)
        yield server, client


def test_one_piece_may_take_far_longer_than_the_limit(pair: tuple[SteadySocket, socket.socket]) -> None:
    """The piece is larger than the buffers of both kernels, so the server's buffer takes no byte for seconds."""
    server, client = pair
    size, taken = 12 << 20, 0
    sending = threading.Thread(target=server.sendall, args=(bytes(size),))
    sending.start()
    begun = time.monotonic()
    while taken < size:
        taken += len(client.recv(MSS))
        if time.monotonic() - begun < 2 * SILENCE:
            time.sleep(SILENCE / 5)
            assert sending.is_alive()
    sending.join(5)
    assert not sending.is_alive()
    assert time.monotonic() - begun > 2 * SILENCE


def test_a_client_that_takes_nothing_is_given_up_after_the_limit(pair: tuple[SteadySocket, socket.socket]) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        pair[0].sendall(bytes(32 << 20))
    assert SILENCE <= time.monotonic() - begun < 3 * SILENCE


def test_a_client_that_sends_nothing_is_given_up_after_the_limit(pair: tuple[SteadySocket, socket.socket]) -> None:
    server, client = pair
    with pytest.raises(TimeoutError):
        server.recv(10)
    client.sendall(b"x")
    assert server.recv(10) == b"x"
    client.close()
    assert server.recv(10) == b""


def test_a_socket_that_is_not_to_wait_does_not(pair: tuple[SteadySocket, socket.socket]) -> None:
    server, client = pair
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(10)
    with pytest.raises(BlockingIOError):
        server.sendall(bytes(32 << 20))
    assert server.peek(10) is None
    client.close()


def test_of_too_many_waits_the_longest_is_cut_off(pair: tuple[SteadySocket, socket.socket]) -> None:
    server, _ = pair
    received: list[bytes] = []
    waiting = threading.Thread(target=lambda: received.append(server.recv(1)))
    waiting.start()
    while not transfers._waits:
        time.sleep(0.01)
    since = time.monotonic()
    others = [transfers.waiting_for_client(since, lambda: pytest.fail("a later wait is cut off")) for _ in range(WAITS)]
    for other in others:
        other.__enter__()
    waiting.join(SILENCE / 2)
    assert received == [b""]
    for other in others:
        other.__exit__(None, None, None)
    assert not transfers._waits


def test_a_transfer_waits_in_its_own_place(pair: tuple[SteadySocket, socket.socket]) -> None:
    server, client = pair
    taken: list[int] = []

    def send() -> None:
        taken.append(len(transfers._waits))
        client.sendall(b"x")

    @transfer()
    def wait() -> None:
        threading.Timer(0.1, send).start()
        assert server.recv(1) == b"x"

    wait()
    assert taken == [0]
    slot = Slot()
    slot.release()
    assert not transfers._thread.slots
