"""Mixed load for a long time: the resources of every process must not grow with time (``make endurance``).

The variable MINUTES sets the length of the load. Resident memory, descriptors, threads, sessions of PostgreSQL and
sizes of logs are read at three moments: after a minute, half-way, and at the end.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from tests.faults.journal import Attempt, Outcome
from tests.faults.load import answers, clients_at_work
from tests.support.installation import Installation, bytes_of

pytestmark = [pytest.mark.system, pytest.mark.endurance]

MINUTES = float(os.environ.get("MINUTES", "20"))
CLIENTS = 8
CHUNK_SIZE = 65536
KEPT = 40  # The number of files that each client does not delete.
# The processes of a program may hold GROWTH times the resources that they held after the first minute, and SPARE_MIB of
# memory in addition: caches fill, and the figures of small processes vary.
GROWTH = 1.25
SHARED_BUFFERS_MIB = 128.0  # The size of PostgreSQL's cache, which fills with the pages that are read.
SPARE_MIB = 24.0


def test_mixed_load_leaves_nothing_behind(
    make_installation: Callable[..., Installation], chance: random.Random
) -> None:
    installation = make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE), RECLAIM_GRACE="20")
    looks: dict[float, Mapping[str, Figures]] = {}
    with mixed_load(installation, chance) as attempts:
        began = time.monotonic()
        for minute in (1.0, max(1.0, MINUTES / 2), max(1.0, MINUTES)):  # After one minute caches are warm.
            time.sleep(max(0.0, began + 60 * minute - time.monotonic()))
            looks[minute] = look(installation)
    print_table(looks)
    print(answers(attempts))
    assert {attempt.status for attempt in attempts if attempt.outcome is Outcome.UNKNOWN} == set()
    assert not [attempt for attempt in attempts if attempt.status is not None and attempt.status >= 500]
    first, *_, last = looks.values()
    for name, figures in last.items():
        before = first[name]
        spare = SPARE_MIB + (SHARED_BUFFERS_MIB if name == "postgres" else 0)
        assert figures.rss_mib <= GROWTH * before.rss_mib + spare, name
        # PostgreSQL has one process per session. A pool opens as many sessions as its threads need at one time.
        sessions = 4 * figures.processes if name == "postgres" else 0
        assert figures.descriptors <= GROWTH * before.descriptors + 16 + sessions, name
        assert figures.threads <= GROWTH * before.threads + 8, name
    installation.settle(f"{CLIENTS} clients for {MINUTES:g} minutes")


@contextmanager
def mixed_load(installation: Installation, chance: random.Random) -> Iterator[list[Attempt]]:
    """Clients that upload, upload again, download whole and in part, rename, verify, rebalance and delete."""
    stop, numbers = Event(), count()
    made: list[Attempt] = []

    def work(draw: random.Random) -> None:
        journal, standing = installation.journal, list[str]()
        while not stop.is_set():
            number = next(numbers)
            data = bytes_of(f"endurance {number}", draw.choice((100, 5_000, CHUNK_SIZE, 1 << 20, 3 << 20)))
            attempt = journal.upload(data, f"endurance {number}")
            made.append(attempt)
            if attempt.outcome is not Outcome.ACKNOWLEDGED:
                continue
            standing.append(attempt.file_hash)
            made.append(journal.download(draw.choice(standing)))
            chosen = draw.choice(standing)
            what = draw.random()
            if what < 0.2:
                made.append(journal.upload(data, f"endurance {number}"))
            elif what < 0.4:
                installation.journal.ask(f"/download/{chosen}", Range="bytes=10-99")
            elif what < 0.6:
                installation.journal.order(f"/files/{chosen}", method="PATCH", file_name=f"renamed {number}")
            elif what < 0.8:
                installation.journal.ask(f"/verify/{chosen}")
            elif what < 0.9:
                installation.journal.order(f"/rebalance/{chosen}", replication_factor=draw.choice((2, 3, 4)))
            while len(standing) > KEPT:
                made.append(journal.delete(standing.pop(draw.randrange(len(standing)))))

    with clients_at_work(work, stop, chance, CLIENTS):
        yield made


class Figures:
    """The sums of the resources that the processes of one program hold."""

    def __init__(self, pids: list[int], log: Path) -> None:
        self.rss_mib = sum(_pss_kib(pid) for pid in pids) / 1024
        self.descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        self.threads = sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)
        self.processes = len(pids)
        self.log_mib = sum(path.stat().st_size for path in log.parent.glob(f"{log.name}*")) / (1 << 20)


def _pss_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB. A shared page is divided among the processes that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def look(installation: Installation) -> Mapping[str, Figures]:
    system = installation.system
    logs = Path(system.storage_dir) / "logs"
    found = {}
    for name in sorted(set(system.pids()) - {"boot"}):
        found[name] = Figures(system.family(name), logs / f"{name}.log")
    found["manager"] = Figures([system.pid], logs / "manager.log")
    return found


def print_table(looks: Mapping[float, Mapping[str, Figures]]) -> None:
    """Print the figures of each reading. PostgreSQL has one process per session, and some processes of its own."""
    print("\n| program | minute | processes | memory, MiB | descriptors | threads | logs, MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in next(iter(looks.values())):
        for minute, seen in looks.items():
            f = seen[name]
            cells = (f.processes, f"{f.rss_mib:.0f}", f.descriptors, f.threads, f"{f.log_mib:.1f}")
            print(f"| {name} | {minute:g} | {' | '.join(map(str, cells))} |")
