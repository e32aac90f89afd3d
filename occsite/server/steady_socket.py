"""A client's socket that times out only when the client is silent, however long a whole transfer takes."""

from __future__ import annotations

import fcntl
import select
import socket
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storage.api.wsgi.transfers import waiting_for_client

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GLANCE = 0.5  # seconds between two looks at how much the client has taken


class SteadySocket(socket.socket):
    """A connection whose timeout is for silence: every byte that the client sends or takes restarts the timeout.

    The timeout of Python's ``sendall`` is for all bytes together, so a client that reads slowly but steadily would be
    cut off. The descriptor never blocks. A call that has to wait polls, and ``storage.api.wsgi.transfers`` limits how
    many threads may wait for clients.
    """

    def __init__(self, accepted: socket.socket, silence: float) -> None:
        """
        Args:
            accepted: the connection; its descriptor moves to this object.
            silence: the seconds for which a client may neither send nor take a byte, while the socket is "blocking".
        """
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().setblocking(False)
        self._silence = silence
        self._patience = 0.0
        self._slow_since: float | None = None

    def begin_request(self) -> None:
        """Forget how long the client has been slow: the time counts for each request separately."""
        self._slow_since = None

    # -- the timeout ---------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        self._patience = self._silence if value is None else value

    def setblocking(self, flag: bool) -> None:
        self._patience = self._silence if flag else 0.0

    def gettimeout(self) -> float:
        return self._patience

    # -- receiving -----------------------------------------------------------

    def peek(self, size: int) -> bytes | None:
        """The bytes that have arrived and are unread; None if no byte has arrived, empty if no more will come."""
        try:
            return super().recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """The next bytes; empty if no more will come.

        Raises:
            BlockingIOError: no byte is there, and the socket does not block.
            TimeoutError: the client sent nothing for the time of the timeout.
        """
        if not self._patience:
            return super().recv(size, flags)
        data = self.recv_within(size, self._patience, flags)
        if data is None:
            raise TimeoutError("the client sent nothing")
        return data

    def recv_within(self, size: int, seconds: float, flags: int = 0) -> bytes | None:
        """The next bytes; None if no byte came within ``seconds``."""
        with suppress(BlockingIOError):
            return super().recv(size, flags)
        with self._waiting(select.POLLIN) as poll:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                poll.poll(left * 1000)
                with suppress(BlockingIOError):
                    return super().recv(size, flags)
        return None

    # -- sending -------------------------------------------------------------

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of ``data``.

        Raises:
            BlockingIOError: not all bytes could be sent at once, and the socket does not block.
            TimeoutError: the client took nothing for the time of the timeout.
        """
        rest = memoryview(data)
        with suppress(BlockingIOError):
            rest = rest[self.send(rest, flags) :]
        if rest:
            self._send_rest(rest, flags)

    def _send_rest(self, rest: memoryview, flags: int) -> None:
        if not self._patience:
            raise BlockingIOError("the client takes nothing now")
        with self._waiting(select.POLLOUT) as poll:
            queued, taken_at = self._queued(), time.monotonic()
            while rest:
                poll.poll(min(GLANCE, self._patience) * 1000)
                with suppress(BlockingIOError):
                    rest = rest[self.send(rest, flags) :]
                    queued, taken_at = self._queued(), time.monotonic()
                    continue
                # A large send buffer may stay unwritable for long although the client takes bytes from it.
                before, queued = queued, self._queued()
                if queued < before:
                    taken_at = time.monotonic()
                elif time.monotonic() - taken_at > self._patience:
                    raise TimeoutError("the client takes nothing")

    def _queued(self) -> int:
        """The number of sent bytes that the client has not acknowledged (SIOCOUTQ, tcp(7))."""
        return int.from_bytes(fcntl.ioctl(self, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    @contextmanager
    def _waiting(self, event: int) -> Iterator[select.poll]:
        if self._slow_since is None:
            self._slow_since = time.monotonic()
        poll = select.poll()
        poll.register(self, event)
        with waiting_for_client(self._slow_since, self._cut_off):
            yield poll

    def _cut_off(self) -> None:
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
