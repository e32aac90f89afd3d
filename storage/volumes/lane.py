"""The lane to one volume: its own bounded threads, a time limit, and a circuit breaker.

A thread that waits for a hung disk cannot be interrupted. So each node has its own threads, and a node that hangs takes
no threads from other nodes (RACES 21). After some failures in a row the breaker opens, and the lane refuses calls until
a back-off has passed, ``Lane.look`` reaches the volume, or PostgreSQL says that the node has come back
(``Lane.returned``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore, Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from storage.exceptions import VolumeOffline, VolumeUnasked
from storage.volumes.base import Volume

T = TypeVar("T")

THREADS = 4
BACKLOG = 1024
TIMEOUT = 10.0
FAILURES_TO_OPEN = 3
BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0)


class Breaker:
    """Counts failures in a row. An open breaker refuses calls until its back-off has passed. If the next call fails,
    the breaker opens again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._openings = 0
        self._closed_again_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN and self._clock() < self._closed_again_at

    @property
    def is_closed(self) -> bool:
        """True if nothing is wrong. If the breaker is neither open nor closed, the next call opens it or closes it."""
        return self._failures < FAILURES_TO_OPEN

    def half_open(self) -> None:
        """Let the next call open or close the breaker. The shortest back-off comes first again: the volume may be a new
        one.
        """
        with self._lock:
            self._openings = 0
            self._closed_again_at = self._clock()

    def succeeded(self) -> None:
        if self._failures:
            with self._lock:
                self._failures = self._openings = 0

    def trip(self) -> None:
        """Open the breaker at once."""
        with self._lock:
            self._failures = max(self._failures, FAILURES_TO_OPEN - 1)
        self.failed()

    def failed(self) -> None:
        with self._lock:
            if self.is_open:
                return  # The call was under way when the breaker opened, so its failure says nothing new.
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                delay = BACK_OFF[min(self._openings, len(BACK_OFF) - 1)]
                self._openings += 1
                self._closed_again_at = self._clock() + delay


@dataclass
class _Call:
    """When a verb was submitted, and when a thread began to run it, on the monotonic clock."""

    asked_at: float
    began_at: float | None = None


class Lane:
    """Calls verbs of one volume in its own threads."""

    def __init__(self, volume: Volume, *, threads: int = THREADS, timeout: float = TIMEOUT) -> None:
        self.volume = volume
        self.timeout = timeout
        self.breaker = Breaker()
        self._threads = threads
        self._slots = BoundedSemaphore(BACKLOG)
        self._calls: WeakKeyDictionary[Future[Any], _Call] = WeakKeyDictionary()
        self._last_ended = time.monotonic()
        self._looking = Lock()
        self._look: Future[Any] | None = None
        self._returned_at: datetime | None = None
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    def submit(self, verb: Callable[..., T], *arguments: object) -> Future[T]:
        """Start a verb, such as ``lane.submit(lane.volume.read, chunk_hash)``.

        Raises:
            VolumeOffline: the breaker is open or the backlog is full.
            VolumeUnasked: this process can start no thread.
        """
        if self.breaker.is_open:
            raise VolumeOffline("not asked: it failed just now")
        return self._submit(verb, *arguments)

    def look(self, verb: Callable[..., T], *arguments: object) -> T:
        """Call a verb even if the breaker is open: its success closes the breaker.

        A look past an open breaker first reads the identity from the medium, because the kernel answers most questions,
        such as how much space is free, from memory, even while the disk hangs. While a look hangs, further looks are
        refused for the time of the longest back-off. So looks at a disk that hangs block no more threads and callers
        than ordinary calls do.

        Raises:
            VolumeOffline: an earlier look hangs, or ``result`` raises this error.
            VolumeUnasked: this process can start no thread.
            VolumeError: the error of the verb.
        """
        if self.breaker.is_closed:
            return self.call(verb, *arguments)
        with self._looking:
            if self._look is not None and self._is_under_way(self._look):
                raise VolumeOffline("not asked: an earlier look at it has not ended yet")
            look: Future[T] = self._submit(self._after_identity, verb, arguments)
            self._look = look
        return self._await(look)

    def returned(self, at: datetime | None) -> None:
        """Half-open the breaker if ``at`` says that the node has come back, and the lane does not know this yet.

        Args:
            at: when the node was last seen to come back; None while the node is away.
        """
        if at is not None and at != self._returned_at:
            self._returned_at = at
            self.breaker.half_open()

    def _is_under_way(self, look: Future[Any]) -> bool:
        """Tell whether an earlier look may still end. A look that has waited for too long is cancelled."""
        # A forked child has none of its parent's threads, so a look of the parent never ends in the child.
        if look.done() or self._pid != os.getpid():
            return False
        if time.monotonic() - self._calls[look].asked_at < BACK_OFF[-1]:
            return True
        look.cancel()
        return False

    def _after_identity(self, verb: Callable[..., T], arguments: tuple[object, ...]) -> T:
        self.volume.identity()
        return verb(*arguments)

    def _submit(self, verb: Callable[..., T], *arguments: object) -> Future[T]:
        if not self._slots.acquire(blocking=False):
            raise VolumeOffline("not asked: too many calls wait for it")
        try:
            call = _Call(asked_at=time.monotonic())
            future = self._executor().submit(self._run, call, verb, *arguments)
        except RuntimeError as error:  # "can't start new thread"
            self._slots.release()
            raise VolumeUnasked(str(error)) from error
        except BaseException:
            self._slots.release()
            raise
        self._calls[future] = call
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def result(self, future: Future[T]) -> T:
        """Wait for the result of a verb.

        The time limit counts from the moment when a thread begins the verb. While the verb still waits for a thread,
        the limit counts from its submission, or from the latest end of a call of this lane if that is later. So a slow
        disk has all the time it needs, and if a disk hangs, no later call waits longer than the first call that hangs.

        Raises:
            VolumeOffline: the volume cannot be reached, or did not answer in time; a write may still happen later.
            VolumeError: the error of the verb.
        """
        try:
            return self._await(future)
        finally:
            future.cancel()  # A verb that has not begun must not run any more: its caller has given up.

    def _await(self, future: Future[T]) -> T:
        call = self._calls[future]
        while True:
            try:
                return future.result(max(0.0, self._deadline(call) - time.monotonic()))
            except FutureTimeout:
                if self._deadline(call) > time.monotonic():
                    continue
                # One hang opens the breaker: a worker that waited for three hangs would lose its lease.
                self.breaker.trip()
                raise VolumeOffline(f"no answer within {self.timeout:g} s") from None

    def _deadline(self, call: _Call) -> float:
        since = max(call.asked_at, self._last_ended) if call.began_at is None else call.began_at
        return since + self.timeout

    def call(self, verb: Callable[..., T], *arguments: object) -> T:
        """``submit`` and wait for the ``result``."""
        return self.result(self.submit(verb, *arguments))

    def _run(self, call: _Call, verb: Callable[..., T], *arguments: object) -> T:
        call.began_at = time.monotonic()
        try:
            result = verb(*arguments)
        except VolumeOffline:
            self.breaker.failed()
            raise
        finally:
            self._last_ended = time.monotonic()
        self.breaker.succeeded()
        return result

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            # Threads do not survive a fork, so a child makes its own.
            if self._pool is None or self._pid != os.getpid():
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="lane")
                self._pid = os.getpid()
            return self._pool
