"""A line to the service that can be cut: a proxy of TCP connections on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

PIECE = 64 << 10


class Line:
    """The line between a browser and a service on this machine.

    Attributes:
        sent: the bytes that clients have sent over the line so far.
    """

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._port = port
        self._rate = 0
        self._allowed: int | None = None
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def cut_after(self, count: int) -> None:
        """Cut all connections when clients have sent this many more bytes, and refuse others until ``mend``."""
        self._allowed = self.sent + count

    def mend(self) -> None:
        self._allowed = None

    def slow_down(self, rate: int) -> None:
        """Take at most this many bytes a second from each client; 0 for as many as come."""
        self._rate = rate

    @property
    def _is_cut(self) -> bool:
        return self._allowed is not None and self.sent >= self._allowed

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            if self._is_cut:
                client.close()
                continue
            service = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {client, service}
            threading.Thread(target=self._up, args=(client, service), daemon=True).start()
            threading.Thread(target=self._down, args=(service, client), daemon=True).start()

    def _up(self, client: socket.socket, service: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(PIECE):
                service.sendall(data)
                self.sent += len(data)
                if self._is_cut:
                    self._cut()
                if self._rate:
                    time.sleep(len(data) / self._rate)
        self._end(client, service)

    def _down(self, service: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := service.recv(PIECE):
                client.sendall(data)
        self._end(client, service)

    def _cut(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            self._open.discard(each)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
