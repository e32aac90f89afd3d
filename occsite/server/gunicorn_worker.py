"""gunicorn's thread worker, so that silent clients cost neither a thread nor the event loop, nor others their place.

gunicorn's own gives a thread to whoever connects, until the whole head of a request has come, and lingers on a
connection that it closes in the event loop itself, for up to two seconds each: a few dozen clients that stall stop it
for everybody, /health included. When it has its limit of connections, it takes no more, however idle those are.
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
from storage.conf import Configuration

log = structlog.get_logger(__name__)

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 32 << 10
UNWANTED_BODY = 1.0  # seconds in which what is left of a body may be read before the connection is kept
SOON = 5  # milliseconds in which a client that has its answer may send the next request to the thread that it had
LINGER = 5.0  # seconds in which a client that still sends may read its answer
LAST_WORDS = 2.0  # seconds in which a worker that stops still takes a request, and a client its answer
LEFTOVER = 256 << 10  # bytes thrown away at once
# The codes of answers to heads that cannot be served; any other is a malformed request.
CODES = {403: "forbidden", 408: "head_stalled", 414: "address_too_long", 431: "head_too_large", 500: "internal_error"}
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BREATH = 0.5  # seconds for which a worker that is short of descriptors accepts nothing
FEWEST_IDLE = 16  # connections that it may still have: whoever connects is idle until the head is there
SHORT_FOR = 60.0  # seconds for which it has fewer idle connections


class Connection(TConn):  # type: ignore[misc]
    """One client's connection: plain HTTP/1, TLS is a proxy's business.

    Attributes:
        idle_since: when it last began to wait in the event loop, by the monotonic clock.
    """

    initialized: bool
    idle_since = 0.0

    def init(self) -> None:
        if not self.initialized:
            self.initialized = True
            self.parser = Parser(self.cfg, self.sock, self.client)

    def has_whole_head(self) -> bool:
        """Whether a thread can parse the next request without waiting for its client."""
        return is_whole(self.held() + (self.sock.peek(HEAD_LIMIT) or b""))

    def held(self) -> bytes:
        """What was received with the previous request and belongs to the next one."""
        return b"" if self.parser is None else bytes(self.parser.unreader.buf.getvalue())


class Worker(ThreadWorker):  # type: ignore[misc]
    """A connection waits in the event loop before it has sent a whole head and after it has got its answer.

    Such connections are idle. When there are too many connections, the one that has been idle for longest is closed,
    so that whoever connects next is read.
    """

    def init_process(self) -> None:
        self._silence = Configuration.from_environment(os.environ).stall_timeout
        self._arriving: dict[Connection, float] = {}
        self._leaving: dict[Connection, float] = {}
        self._is_short = False
        self._resumes_at = 0.0
        self._short_until = 0.0
        self._idle_limit: int = self.worker_connections
        util.write_error = write_problem  # gunicorn's own answers, which it has no setting for
        super().init_process()

    # -- connecting ----------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """Called by the event loop when a client has connected."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno in SHORTAGE:
                self._is_short = True
            elif error.errno in (errno.EBADF, errno.EINVAL):
                raise
            return  # accept(2) also passes on errors of the network: they are the client's
        self.nr_conns += 1
        steady = SteadySocket(accepted, self._silence)
        self.enqueue_req(Connection(self.cfg, steady, client, listener.getsockname()))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called by the event loop; not enabled and no longer alive, the worker ends what it has begun and stops."""
        if enabled and time.monotonic() < self._resumes_at:
            return
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

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Called by the event loop. Room is made when no event is left that may belong to an idle connection."""
        super().wait_for_and_dispatch_events(timeout)
        if self._is_short and self.alive:
            self._is_short = False
            self._make_do()
        while self.nr_conns >= self.worker_connections or self._idle() > self._idle_limit:
            if not self._close_longest_idle():
                break

    def _idle(self) -> int:
        """How many connections wait in the event loop."""
        return len(self.keepalived_conns) + len(self._arriving) + len(self._leaving)

    def _make_do(self) -> None:
        """Close half of the idle connections, and have no more for a while: files and databases need descriptors too.

        Connections that threads work on do not count: a limit for all would let those keep out /health. If nothing is
        idle, nothing is accepted for a moment.
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
        """Close one connection, of those that are idle; False if there is none."""
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
        """Called for every connection on which a request may begin."""
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
        # Readable with less than was asked for: there will be nothing more.
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
        """Called in a thread; true if the connection is to be kept.

        A client that asks one thing after the other keeps its thread, for as long as there is one for each connection:
        to go through the event loop for every request costs as much as to parse it.
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
        # Briefly: a thread must not wait for a body that nobody wants, and a busy machine must not look like one.
        return keepalive and bool(conn.parser.finish_body(time.monotonic() + UNWANTED_BODY, LARGE))

    def finish_request(self, conn: Connection, done: Future[Any]) -> None:
        """Called in the event loop when a thread is through with a connection."""
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
    """Whether a request's head has come to its end; empty lines before it do not count (RFC 9112 §2.2)."""
    return HEAD_END in head.lstrip(b"\r\n")


def expired(waiting: dict[Connection, float], now: float) -> Connection | None:
    """The connection that has waited for longest, if its time is over: they are in the order of their deadlines."""
    first = next(iter(waiting.items()), None)
    return first[0] if first and first[1] < now else None


def write_problem(sock: socket.socket, status: int, _reason: str, message: str) -> None:
    """Answer a request that never reached Django: an RFC 9457 document, as everywhere."""
    title = HTTPStatus(status).phrase  # gunicorn calls most of them a Bad Request
    code = CODES.get(status, "malformed_request")
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "code": code, "detail": message}
    ).encode()
    head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    util.write_nonblock(sock, head.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
