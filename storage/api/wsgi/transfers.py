"""Limits on how many threads may wait for clients at the same time: some threads stay free for other requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock, local

from storage.accounts import leases
from storage.accounts.leases import Lease
from storage.conf import configuration
from storage.exceptions import TooManyTransfers

TRANSFERS = 56  # Places for uploads, downloads and other long requests, in each of gunicorn's processes.
WAITS = 8  # Places for other requests whose client is slow to send or to read, such as an admin form.
FREE = 8  # Threads that no client can hold up: they answer /health.
THREADS = TRANSFERS + WAITS + FREE

_slots = BoundedSemaphore(TRANSFERS)
_waits: dict[object, tuple[float, Callable[[], object]]] = {}
_waits_lock = Lock()


class _Thread(local):
    """The slots that one thread holds, and the id of the owner that its request comes from, if that is known."""

    def __init__(self) -> None:
        self.slots: set[Slot] = set()
        self.owner: str | None = None


_thread = _Thread()


class Slot:
    """The place of one transfer. Several calls of ``release`` give the place back only once."""

    def __init__(self) -> None:
        """Take a place, without waiting.

        Raises:
            TooManyTransfers: all places are taken. Waiting for a place would occupy threads that must stay free.
            TooManyOwnTransfers: the owner has as many transfers as MAX_TRANSFERS_PER_OWNER allows.
        """
        self._places = _slots
        if not self._places.acquire(blocking=False):
            raise TooManyTransfers("too many transfers at once")
        try:
            self._lease = _lease()
        except BaseException:
            self._places.release()
            raise
        self._held = True
        self._holders = _thread.slots  # The slot remembers this set, because another thread may release the slot.
        self._holders.add(self)

    def release(self) -> None:
        if self._held:
            self._held = False
            self._holders.discard(self)
            self._places.release()
            if self._lease is not None:
                leases.end(self._lease)


def _lease() -> Lease | None:
    most = configuration().max_transfers_per_owner
    return leases.begin(_thread.owner, most) if most and _thread.owner is not None else None


@contextmanager
def on_behalf_of(owner: str | None) -> Iterator[None]:
    """Count the slots that this thread takes within the ``with`` block as transfers of an owner.

    Args:
        owner: the owner's id; None if the transfers count for no owner.
    """
    _thread.owner = owner
    try:
        yield
    finally:
        _thread.owner = None


def on_behalf_of_visitors(owner: str) -> None:
    """Count the slots that this thread takes for the present request as transfers of visitors, who use a share link of
    the owner.

    Visitors and owner have separate places, so neither can take the places of the other.
    """
    _thread.owner = f"visitors:{owner}"


@contextmanager
def transfer() -> Iterator[None]:
    """Hold a place during the call of a view. ``transfer`` decorates views that read a request's body or wait for a
    worker or a disk.

    Raises:
        TooManyTransfers: all places are taken.
    """
    slot = Slot()
    try:
        yield
    finally:
        slot.release()


@contextmanager
def waiting_for_client(since: float, cut_off: Callable[[], object]) -> Iterator[None]:
    """Let this thread wait for its client within the ``with`` block: in the place of its transfer, or in one of
    ``WAITS`` other places.

    When all of these places are taken, the request that has been waiting for longest is cut off. A slow client can
    therefore hold up other slow clients, but neither /health nor a request that needs no wait.

    Args:
        since: the time at which the request began to wait, in seconds of the monotonic clock.
        cut_off: a function that ends the wait of this thread. Another thread may call this function.
    """
    if _thread.slots:
        yield
        return
    wait = object()
    with _waits_lock:
        if len(_waits) >= WAITS:
            oldest = min(_waits, key=lambda other: _waits[other][0])
            _waits.pop(oldest)[1]()
        _waits[wait] = since, cut_off
    try:
        yield
    finally:
        with _waits_lock:
            _waits.pop(wait, None)
