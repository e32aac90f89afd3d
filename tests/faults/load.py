"""What goes on while a fault happens: clients that upload, download and delete, and a reclaim without any grace."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event

from tests.faults.journal import Attempt, Outcome
from tests.support.installation import PATIENCE, Installation, bytes_of

CLIENTS = 3
SHARED_CHUNKS = 40


@contextmanager
def load(
    installation: Installation,
    label: str,
    chance: random.Random,
    *,
    chunk_size: int,
    chunks: int = 16,
    kept: float = 1 / 3,
    pause: float = 0.0,
    clients: int = CLIENTS,
) -> Iterator[list[Attempt]]:
    """Clients that upload, download and delete while the body runs; what they are answered is for the oracle to judge.

    Args:
        installation: on which.
        label: no other load of this installation has the same.
        chance: what they draw from.
        chunk_size: bytes, as the installation is configured.
        chunks: of each file; a quarter of them is taken from a pool that all files share.
        kept: share of the files that are not deleted again.
        pause: seconds of rest between two files of one client; a service that refuses at once needs some.
        clients: how many there are.

    Yields:
        A list of the attempts, complete once the body has ended.
    """
    journal, stop, numbers = installation.journal, Event(), count()
    common = [bytes_of(f"{label} shared {i}", chunk_size) for i in range(SHARED_CHUNKS)]
    made: list[Attempt] = []

    def work(draw: random.Random) -> None:
        standing = list[str]()
        while not stop.is_set():
            number, shared = next(numbers), chunks // 4
            data = b"".join(draw.sample(common, shared)) + bytes_of(f"{label} {number}", (chunks - shared) * chunk_size)
            attempt = journal.upload(data, f"{label} {number}")
            made.append(attempt)
            if attempt.outcome is Outcome.ACKNOWLEDGED:
                some = (attempt.file_hash, *draw.sample(standing, min(len(standing), 2)))
                made.extend(journal.download(file_hash) for file_hash in some)
                if draw.random() < kept:
                    standing.append(attempt.file_hash)
                else:
                    made.append(journal.delete(attempt.file_hash))
            stop.wait(pause)

    with clients_at_work(work, stop, chance, clients):
        yield made


@contextmanager
def clients_at_work(
    work: Callable[[random.Random], None], stop: Event, chance: random.Random, clients: int
) -> Iterator[None]:
    """Threads that each do the work of a client while the body runs; what one of them raises, the body's end raises.

    Args:
        work: goes on until ``stop`` is set, and draws from what it is given.
        stop: set when the body ends.
        chance: each client's own chance is drawn from this one.
        clients: how many there are.
    """
    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work, random.Random(chance.random())) for _ in range(clients)]
        try:
            yield
        finally:
            stop.set()
        for client in working:
            client.result()


@contextmanager
def reclaiming(installation: Installation, stop: Path) -> Iterator[Counter[str]]:
    """Reclaim runs without any grace and without a pause while the body does; the body's end says what it did.

    Args:
        installation: on which.
        stop: a file that is not there.
    """
    done: Counter[str] = Counter()
    with installation.start("reclaim_until", repr(str(stop))) as process:
        try:
            yield done
        finally:
            stop.touch()
            output, _ = process.communicate(timeout=PATIENCE)
    done.update(json.loads(output))


def answers(attempts: Sequence[Attempt]) -> Counter[str]:
    """How often each action was answered with each status; ``None`` where no whole answer came."""
    return Counter(f"{attempt.action} {attempt.status}" for attempt in attempts)
