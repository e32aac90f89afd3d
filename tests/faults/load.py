"""The load during a fault: clients that upload, download and delete, and a reclaim without a grace period."""

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
    """Let clients upload, download and delete during the ``with`` block. The oracle judges the answers later.

    Args:
        installation: the installation that gets the load.
        label: a name that no other load of this installation has.
        chance: the source of the clients' random numbers.
        chunk_size: the chunk size of the installation in bytes.
        chunks: chunks of each file. A quarter of the chunks of each file is taken from a pool that all files share.
        kept: share of the files that are not deleted again.
        pause: seconds between two files of one client. Without a pause, clients would flood a service that refuses at
            once.
        clients: how many clients there are.

    Yields:
        A list of the attempts. The list is complete when the ``with`` block has ended.
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
    """Run ``work`` in one thread per client during the ``with`` block. An exception of a thread is raised after the
    block.

    Args:
        work: the work of one client, a function that returns when ``stop`` is set, and that gets a random generator of
            its own.
        stop: the event that is set when the block ends.
        chance: the generator that the clients' generators are seeded from.
        clients: how many threads there are.
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
    """Reclaim again and again, without a grace period and without a pause, during the ``with`` block.

    Args:
        installation: the installation that reclaims.
        stop: a path at which no file is yet. A file at this path ends the reclaim.

    Yields:
        The numbers of copies and rows that were reclaimed. The numbers are filled in when the ``with`` block has ended.
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
    """Count the attempts by action and status. The status is ``None`` where no answer came."""
    return Counter(f"{attempt.action} {attempt.status}" for attempt in attempts)
