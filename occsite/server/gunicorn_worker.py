"""gunicorn's thread worker, changed so that silent clients hold no thread, no event loop, and no other client's place.

gunicorn's own worker gives a thread to each client that connects, until the whole head of a request has come. When
gunicorn's worker closes a connection, its event loop waits for the client, for up to two seconds each time. So a few
dozen clients that stall stop the service for everybody, /health included. At its limit of connections, gunicorn's
worker accepts no more, although many connections may be idle.
"""

from __future__ import annotations

import contextlib
import errno
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

import structlog
from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from occsite.server.gunicorn_request import LARGE, Parser
from occsite.server.steady_socket import SteadySocket
from storage.api.wsgi.protection import PROTECTION
from storage.conf import Configuration

log = structlog.get_logger(__name__)

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 32 << 10
UNWANTED_BODY = 1.0  # For this many seconds the rest of a body is read, so that the connection can be kept.
SOON = 5  # milliseconds: if the client's next request comes within this time, the same thread handles it.
LINGER = 5.0  # A client that still sends has this many seconds to read its answer.
LAST_WORDS = 2.0  # A stopping worker waits this many seconds for arriving heads, and for clients that still read.
LEFTOVER = 256 << 10  # the largest number of bytes that one read throws away
# The error codes for heads that cannot be served, by status; with any other status the code is malformed_request.
CODES = {403: "forbidden", 408: "head_stalled", 414: "address_too_long", 431: "head_too_large", 500: "internal_error"}
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BREATH = 0.5  # A worker with neither free descriptors nor idle connections accepts no client for this many seconds.
# A worker that is short of descriptors still keeps this many idle connections: a new connection is idle until the head
# of its request has come.
FEWEST_IDLE = 16
SHORT_FOR = 60.0  # For this many seconds after a shortage the worker keeps fewer idle connections.


class Connection(TConn):  # type: ignore[misc]
    """One client's connection: plain HTTP/1, because a proxy handles TLS.

    Attributes:
        idle_since: when the connection last began to wait in the event loop, on the monotonic clock.
    """

    initialized: bool
    idle_since = 0.0

    def init(self) -> None:
        if not self.initialized:
            self.initialized = True
            self.parser = Parser(self.cfg, self.sock, self.client)

    def has_whole_head(self) -> bool:
        """Tell whether a thread can parse the next request without waiting for the client."""
        return is_whole(self.held() + (self.sock.peek(HEAD_LIMIT) or b""))

    def held(self) -> bytes:
        """The bytes that were received with the previous request and belong to the next one."""
        return b"" if self.parser is None else bytes(self.parser.unreader.buf.getvalue())


class Worker(ThreadWorker):  # type: ignore[misc]
    """A thread worker in which connections that need no thread wait in the event loop.

    A connection waits there until a whole head has come, and again after its answer. A connection that waits in the
    event loop is called idle. If there are too many connections, the longest idle connection is closed, to make room
    for the next client.
    """

    def init_process(self) -> None:
        self._silence = Configuration.from_environment(os.environ).stall_timeout
        self._arriving: dict[Connection, float] = {}
        self._leaving: dict[Connection, float] = {}
        self._is_short = False
        self._resumes_at = 0.0
        self._short_until = 0.0
        self._idle_limit: int = self.worker_connections
        util.write_error = write_problem  # gunicorn has no setting for the form of its own answers.
        super().init_process()

    # -- connecting ----------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """Accept a client; the event loop calls this when a client has connected."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno in SHORTAGE:
                self._is_short = True
            elif error.errno in (errno.EBADF, errno.EINVAL):
                raise
            return  # accept(2) also reports network errors of the new connection: they concern this client only.
        self.nr_conns += 1
        steady = SteadySocket(accepted, self._silence)
        self.enqueue_req(Connection(self.cfg, steady, client, listener.getsockname()))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end accepting clients; the event loop calls this.

        If ``enabled`` is false and the worker is no longer alive, the worker finishes its requests and stops.
        """
        if enabled and time.monotonic() < self._resumes_at:
            return
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        # gunicorn would keep the port open until the worker has stopped. Clients that connect to a worker that is
        # stopping would wait, and be cut off in the end. If clients are refused at once, they or their proxy can go to
        # another container.
        for listener in self.sockets:
            taken = -1
            while taken != self.nr_conns:
                taken = self.nr_conns
                self.accept(listener)
            listener.close()
        patience = time.monotonic() + LAST_WORDS
        for waiting in (self._arriving, self._leaving):
            waiting.update({conn: min(deadline, patience) for conn, deadline in waiting.items()})

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle events, then close idle connections if there are too many; the event loop calls this.

        A connection is closed only after all events are handled, so no event is left that belongs to it.
        """
        super().wait_for_and_dispatch_events(timeout)
        if self._is_short and self.alive:
            self._is_short = False
            self._make_do()
        while self.nr_conns >= self.worker_connections or self._idle() > self._idle_limit:
            if not self._close_longest_idle():
                break

    def _idle(self) -> int:
        """The number of connections that wait in the event loop."""
        return len(self.keepalived_conns) + len(self._arriving) + len(self._leaving)

    def _make_do(self) -> None:
        """Close half of the idle connections, and keep fewer of them for a while: files and databases need descriptors
        too.

        The limit is for idle connections only. A limit for all connections could be used up by connections that threads
        work on, and /health would get none. If no connection is idle, the worker accepts no client for a moment.
        """
        idle, now = self._idle(), time.monotonic()
        if now > self._short_until:
            log.warning("connections.short_of_descriptors", connections=self.nr_conns, idle=idle)
        self._idle_limit, self._short_until = max(FEWEST_IDLE, idle // 2), now + SHORT_FOR
        for _ in range(max(1, idle // 2)):
            if not self._close_longest_idle():
                self._resumes_at = now + BREATH
                self.set_accept_enabled(False)

    def _close_longest_idle(self) -> bool:
        """Close the connection that has been idle for longest; returns False if no connection is idle."""
        waiting = (self.keepalived_conns, self._arriving, self._leaving)
        conn = min((next(iter(conns)) for conns in waiting if conns), key=lambda conn: conn.idle_since, default=None)
        if conn is None:
            return False
        if conn in self._arriving:
            self._forget(conn, self._arriving)
        elif conn in self._leaving:
            self._forget(conn, self._leaving)
        else:
            self.keepalived_conns.remove(conn)
            self.poller.unregister(conn.sock)
        self._close(conn)
        return True

    # -- before the request --------------------------------------------------

    def enqueue_req(self, conn: Connection) -> None:
        """Give a connection to a thread, or wait for its head; called if a request may begin on the connection."""
        conn.sock.setblocking(False)
        if conn.has_whole_head():
            self._hand_over(conn)
            return
        conn.idle_since = time.monotonic()
        self._arriving[conn] = conn.idle_since + (self._silence if self.alive else LAST_WORDS)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head, conn))
        self._on_head(conn)

    def _on_head(self, conn: Connection, _sock: object = None) -> None:
        arrived = conn.sock.peek(HEAD_LIMIT)
        head = conn.held() + (arrived or b"")
        complete = is_whole(head)
        if not complete and arrived is None:
            return
        # A socket that is readable with fewer bytes than SO_RCVLOWAT has been closed by the client: no more will come.
        if not complete and arrived and len(arrived) >= conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT):
            if len(head) >= HEAD_LIMIT:
                self._refuse(conn, 431, "the head of the request is too large")
            else:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(arrived) + 1)
            return
        self._forget(conn, self._arriving)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._hand_over(conn)

    def _hand_over(self, conn: Connection) -> None:
        conn.data_ready = True
        super().enqueue_req(conn)

    def _refuse(self, conn: Connection, status: int, detail: str) -> None:
        self._forget(conn, self._arriving)
        with contextlib.suppress(OSError):
            write_problem(conn.sock, status, HTTPStatus(status).phrase, detail)
        self._linger(conn)

    # -- the request ---------------------------------------------------------

    def handle(self, conn: Connection) -> Any:
        """Serve requests of a connection in a thread; true if the connection is kept.

        A client that sends one request after the other keeps its thread, as long as there is a thread for each
        connection. Passing each request through the event loop would cost as much as parsing the request.
        """
        conn.sock.begin_request()
        kept = super().handle(conn)
        while kept is True and self.alive and self.nr_conns <= self.cfg.threads and self._next_has_come(conn):
            conn.sock.begin_request()
            kept = super().handle(conn)
        return kept

    def _next_has_come(self, conn: Connection) -> bool:
        if conn.held():
            return False
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(SOON)) and conn.has_whole_head()

    # -- after the answer ----------------------------------------------------

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        # UNWANTED_BODY is short, because no thread may wait long for the rest of a body that no view has read. A client
        # whose bytes arrive slowly on a busy machine still gets enough time, and is not taken for a stalled client.
        return keepalive and bool(conn.parser.finish_body(time.monotonic() + UNWANTED_BODY, LARGE))

    def finish_request(self, conn: Connection, done: Future[Any]) -> None:
        """Keep or end a connection; the event loop calls this when a thread has finished with the connection."""
        if not done.cancelled() and done.exception() is None and done.result():
            conn.idle_since = time.monotonic()
            super().finish_request(conn, done)
        else:
            self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_leftover, conn))
        except (OSError, ValueError):
            self._close(conn)
        else:
            conn.idle_since = time.monotonic()
            self._leaving[conn] = conn.idle_since + (LINGER if self.alive else LAST_WORDS)

    def _on_leftover(self, conn: Connection, sock: socket.socket) -> None:
        """Throw away bytes that the client still sends.

        Closing a connection with unread bytes resets it, and the client would lose its answer.
        """
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
        """End connections whose time is over; the event loop calls this at least every second."""
        super().murder_pending()
        now = time.monotonic()
        if now > self._short_until:
            self._idle_limit = self.worker_connections
        while conn := expired(self._arriving, now):
            if self.alive and conn.sock.peek(1):
                self._refuse(conn, 408, "the client stopped sending")
            else:
                self._forget(conn, self._arriving)
                self._close(conn)
        while conn := expired(self._leaving, now):
            self._forget(conn, self._leaving)
            self._close(conn)

    def _forget(self, conn: Connection, waiting: dict[Connection, float]) -> None:
        del waiting[conn]
        self.poller.unregister(conn.sock)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()


def is_whole(head: bytes) -> bool:
    """Tell whether ``head`` has a whole head of a request; empty lines before it do not count (RFC 9112 §2.2)."""
    return HEAD_END in head.lstrip(b"\r\n")


def expired(waiting: dict[Connection, float], now: float) -> Connection | None:
    """The first connection if its deadline has passed; ``waiting`` is in the order of the deadlines."""
    first = next(iter(waiting.items()), None)
    return first[0] if first and first[1] < now else None


def write_problem(sock: socket.socket, status: int, _reason: str, message: str) -> None:
    """Answer a request that never reached Django, with a problem document (RFC 9457) as everywhere."""
    title = HTTPStatus(status).phrase  # gunicorn's own phrase is Bad Request for most of these statuses.
    code = CODES.get(status, "malformed_request")
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "code": code, "detail": message}
    ).encode()
    fields = {
        "Connection": "close",
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        **PROTECTION,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    util.write_nonblock(sock, f"HTTP/1.1 {status} {title}\r\n{head}\r\n".encode("latin-1") + body)
