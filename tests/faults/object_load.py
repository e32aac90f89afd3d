"""The load on the S3 door during a fault: clients that write, copy, delete, read and list the same few objects."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from threading import Event

from storage.services.objects.multipart import LEAST_PART
from tests.faults.journal import Outcome
from tests.faults.load import clients_at_work
from tests.faults.object_journal import ObjectJournal, Upload
from tests.faults.registers import Change, Look
from tests.support.installation import Installation, bytes_of

CLIENTS = 6
KEYS = tuple(f"key {number}" for number in range(6))
SMALL = 300_000  # bytes
LARGE = 5_000_000  # Bytes of an object with more chunks of 65,536 bytes than are read together with its row.
BREATH = 0.1  # Seconds that a client pauses after a request without success.

Work = Callable[[ObjectJournal, random.Random, Callable[[int], bytes]], Change | Look | None]


@contextmanager
def object_load(installation: Installation, label: str, chance: random.Random) -> Iterator[list[Change | Look]]:
    """Let clients use a few objects during the ``with`` block. The journal of objects records their requests.

    Args:
        installation: the installation that gets the load. It has the bucket already.
        label: a name that no other load of this installation has.
        chance: the source of the clients' random numbers.

    Yields:
        A list of the clients' exchanges. The list is complete when the ``with`` block has ended.
    """
    journal, stop, numbers = installation.objects, Event(), count()
    made: list[Change | Look] = []
    before = {*journal.exchanges}

    def new_bytes(size: int) -> bytes:
        return bytes_of(f"{label} {next(numbers)}", size)

    def work(draw: random.Random) -> None:
        while not stop.is_set():
            (act,) = draw.choices([*ACTS], [*ACTS.values()])
            done = act(journal, draw, new_bytes)
            if done is None or done.outcome is not Outcome.ACKNOWLEDGED:
                stop.wait(BREATH)

    with clients_at_work(work, stop, chance, CLIENTS):
        yield made
    made += [exchange for exchange in journal.exchanges if exchange not in before]


def put(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Change:
    size = LARGE if draw.random() < 0.1 else draw.randrange(1, SMALL)
    return journal.put(draw.choice(KEYS), new_bytes(size))


def upload_in_parts(
    journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]
) -> Change | Look | None:
    """Upload two parts, the second part perhaps twice, list the parts, and complete or abort the upload."""
    upload = journal.begin_upload(draw.choice(KEYS))
    if upload is None:
        return None
    for number, size in ((1, LEAST_PART), (2, 1000), *(((2, 2000),) if draw.random() < 0.5 else ())):
        if not journal.put_part(upload, number, new_bytes(size)):
            return None
    journal.list_parts(upload)
    return _end(journal, upload, draw)


def _end(journal: ObjectJournal, upload: Upload, draw: random.Random) -> Change | Look:
    if draw.random() < 0.25:
        journal.abort(upload)
        return journal.list_parts(upload)
    return journal.complete(upload)


def copy(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Change:
    return journal.copy(*draw.sample(KEYS, 2))


def delete(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Change:
    return journal.delete(draw.choice(KEYS))


def delete_many(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Change:
    return journal.delete_many(draw.sample(KEYS, 2))


def get(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Look:
    return journal.get(draw.choice(KEYS))


def list_all(journal: ObjectJournal, draw: random.Random, new_bytes: Callable[[int], bytes]) -> Look:
    return journal.list()


# Operation → how often the clients choose it, relative to the other operations.
ACTS: Mapping[Work, float] = {
    put: 34,
    upload_in_parts: 5,
    copy: 10,
    delete: 6,
    delete_many: 3,
    get: 30,
    list_all: 12,
}


def answers(exchanges: list[Change | Look]) -> dict[str, int]:
    """Count the exchanges by operation and status. The status is ``None`` where no answer came."""
    return dict(sorted(Counter(f"{exchange.operation} {exchange.status}" for exchange in exchanges).items()))


def throughout(seconds: float, times: int, fault: Callable[[], object], chance: random.Random) -> None:
    """Call ``fault`` as often as ``times`` says, each time after a random pause of ``seconds`` on average."""
    for _ in range(times):
        time.sleep(chance.uniform(0.2, 1.8) * seconds)
        fault()
