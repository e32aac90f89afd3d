"""gunicorn's thread worker, so that silent clients cost neither a thread nor the event loop.

gunicorn's own gives a thread to whoever connects, until the whole head of a request has come, and lingers on a
connection that it closes in the event loop itself, for up to two seconds each: a few dozen clients that stall stop it
for everybody, /health included.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import socket
import time
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http.body import Body, LengthReader
from gunicorn.workers.gthread import TConn, ThreadWorker

from storage.conf import Configuration

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 32 << 10
UNWANTED_BODY = 1.0  # seconds in which what is left of a body may be read before the connection is kept
LARGE = 1 << 20  # bytes of a body, or a body of unknown length, after which a connection is not kept
SOON = 5  # milliseconds in which a client that has its answer may send the next request to the thread that it had
LINGER = 5.0  # seconds in which a client that still sends may read its answer
LAST_WORDS = 2.0  # seconds in which a worker that stops still takes a request, and a client its answer
LEFTOVER = 256 << 10  # bytes thrown away at once


class Worker(ThreadWorker):  # type: ignore[misc]
    """A connection waits in the event loop before it has sent a whole head and after it has got its answer."""

    def init_process(self) -> None:
        self._silence = Configuration.from_environment(os.environ).stall_timeout
        self._arriving: dict[TConn, float] = {}
        self._leaving: dict[TConn, float] = {}
        util.write_error = write_problem  # gunicorn's own answers, which it has no setting for
        super().init_process()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called by the event loop; not enabled and no longer alive, the worker ends what it has begun and stops."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        # gunicorn would hold the port until then: whoever connected meanwhile would wait, and be cut off in the end.
        # Refused at once, a client, or the proxy before it, can go to another container.
        for listener in self.sockets:
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
            listener.close()
        patience = time.monotonic() + LAST_WORDS
        for waiting in (self._arriving, self._leaving):
            waiting.update({conn: min(deadline, patience) for conn, deadline in waiting.items()})

    # -- before the request --------------------------------------------------

    def enqueue_req(self, conn: TConn) -> None:
        """Called for every connection on which a request may begin."""
        conn.sock.setblocking(False)
        if HEAD_END in (peek(conn.sock) or b""):
            conn.data_ready = True
            super().enqueue_req(conn)
            return
        self._arriving[conn] = time.monotonic() + (self._silence if self.alive else LAST_WORDS)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head, conn))
        self._on_head(conn)

    def _on_head(self, conn: TConn, _sock: object = None) -> None:
        arrived = peek(conn.sock)
        held: bytes = conn.parser.unreader.buf.getvalue() if conn.parser is not None else b""
        head = (held + (arrived or b"")).lstrip(b"\r\n")
        complete = HEAD_END in head
        if not complete and arrived is None:
            return
        # Readable with less than was asked for: there will be nothing more.
        if not complete and arrived and len(arrived) >= conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT):
            if len(head) >= HEAD_LIMIT:
                self._refuse(conn, 431, "the head of the request is too large")
            else:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(arrived) + 1)
            return
        self._forget(conn, self._arriving)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        conn.data_ready = True
        super().enqueue_req(conn)

    def _refuse(self, conn: TConn, status: int, detail: str) -> None:
        self._forget(conn, self._arriving)
        with contextlib.suppress(OSError):
            write_problem(conn.sock, status, HTTPStatus(status).phrase, detail)
        self._linger(conn)

    # -- the request ---------------------------------------------------------

    def handle(self, conn: TConn) -> Any:
        """Called in a thread; true if the connection is to be kept.

        A client that asks one thing after the other keeps its thread, for as long as there is one for each connection:
        to go through the event loop for every request costs as much as to parse it.
        """
        kept = super().handle(conn)
        while kept is True and self.alive and self.nr_conns <= self.cfg.threads and self._next_has_come(conn):
            kept = super().handle(conn)
        return kept

    def _next_has_come(self, conn: TConn) -> bool:
        if conn.parser.unreader.buf.getvalue():
            return False
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(SOON)) and HEAD_END in (peek(conn.sock) or b"")

    # -- after the answer ----------------------------------------------------

    def handle_request(self, req: Any, conn: TConn) -> bool:
        length = getattr(req.body.reader, "length", LARGE)
        if length >= LARGE:
            req.force_close()  # said in the answer, which may come before the body has
        if length and isinstance(req.body.reader, LengthReader):
            req.body = SizedBody(req.body.reader)
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # Briefly: a thread must not wait for a body that nobody wants, and a busy machine must not look like one.
        return keepalive and bool(conn.parser.finish_body(time.monotonic() + UNWANTED_BODY, LARGE))

    def finish_request(self, conn: TConn, done: Future[Any]) -> None:
        """Called in the event loop when a thread is through with a connection."""
        if not done.cancelled() and done.exception() is None and done.result():
            super().finish_request(conn, done)
        else:
            self._linger(conn)

    def _linger(self, conn: TConn) -> None:
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_leftover, conn))
        except (OSError, ValueError):
            self._close(conn)
        else:
            self._leaving[conn] = time.monotonic() + (LINGER if self.alive else LAST_WORDS)

    def _on_leftover(self, conn: TConn, sock: socket.socket) -> None:
        """Throw away what the client still sends: to close with it unread would cost the client its answer."""
        try:
            if sock.recv(LEFTOVER):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._forget(conn, self._leaving)
        self._close(conn)

    # -- time ----------------------------------------------------------------

    def murder_pending(self) -> None:
        """Called by the event loop every second or more often."""
        super().murder_pending()
        now = time.monotonic()
        for conn in [c for c, deadline in self._arriving.items() if deadline < now]:
            if self.alive and peek(conn.sock):
                self._refuse(conn, 408, "the client stopped sending")
            else:
                self._forget(conn, self._arriving)
                self._close(conn)
        for conn in [c for c, deadline in self._leaving.items() if deadline < now]:
            self._forget(conn, self._leaving)
            self._close(conn)

    def _forget(self, conn: TConn, waiting: dict[TConn, float]) -> None:
        del waiting[conn]
        self.poller.unregister(conn.sock)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()


class SizedBody(Body):  # type: ignore[misc]
    """A body of known length, of which no more is received at once than is asked for.

    gunicorn's own receives ahead, and copies what is left over at each read: more than once each byte.
    """

    def read(self, size: int | None = None) -> bytes:
        """The next bytes: so many, or as many as there are before the body or the connection ends."""
        if self.buf.tell():  # of a line that was read
            return bytes(super().read(size))
        left = min(self.getsize(size), self.reader.length)
        unreader = self.reader.unreader
        held: bytes = unreader.take_buffered()
        if len(held) > left:
            unreader.unread(held[left:])
            held = held[:left]
        pieces = [held] if held else []
        left -= len(held)
        self.reader.length -= len(held)
        try:
            while left and (piece := unreader.sock.recv(left)):
                pieces.append(piece)
                left -= len(piece)
                self.reader.length -= len(piece)
        except OSError:
            self.failed = True
            raise
        return b"".join(pieces)


def peek(sock: socket.socket) -> bytes | None:
    """What has arrived and not been read; None if that is nothing yet, empty if there will be nothing more."""
    try:
        return sock.recv(HEAD_LIMIT, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def write_problem(sock: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer a request that never reached Django: an RFC 9457 document, as everywhere."""
    title = HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": message}).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    util.write_nonblock(sock, head.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
