"""Seats: however a process ends, the next process continues its counts, in the same files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from storage.api.metrics import seats
from tests.support.system import PROJECT

RESTARTS, SIDE_BY_SIDE = 50, 3

# The program forks a process that claims a seat, makes the metrics, counts one request, says which seat it has, and
# waits to be killed. The program forks one process for each line of its input.
PROGRAM = """
import os, sys
from pathlib import Path
from prometheus_client import Counter, Histogram
from storage.api.metrics import seats
for line in sys.stdin:
    if line == "fork\\n":
        if not (pid := os.fork()):
            seat = seats.claim(Path(sys.argv[1]))
            Counter("seen_total", "", ["code"], registry=None).labels("200").inc()
            Histogram("took_seconds", "", buckets=(1, 2), registry=None).observe(1.5)
            print(os.getpid(), seat, flush=True)
            os.read(os.pipe()[0], 1)
    else:
        os.waitpid(int(line), 0)
        print("gone", flush=True)
"""


class Forks:
    """Processes that each have a seat."""

    def __init__(self, folder: Path) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running: list[tuple[int, int]] = []

    def fork(self) -> int:
        """Start a process; return its seat."""
        pid, seat = map(int, self._ask("fork").split())
        self.running.append((pid, seat))
        return seat

    def kill_oldest(self) -> None:
        pid, _ = self.running.pop(0)
        os.kill(pid, signal.SIGKILL)
        assert self._ask(str(pid)) == "gone\n"

    def end(self) -> None:
        while self.running:
            self.kill_oldest()
        self._program.communicate()

    def _ask(self, line: str) -> str:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        return self._program.stdout.readline()


def counted(folder: Path) -> dict[str, float]:
    """Return all samples of counters and histograms."""
    samples = [sample for metric in MultiProcessCollector(None, str(folder)).collect() for sample in metric.samples]
    return {f"{sample.name}{sorted(sample.labels.items())}": sample.value for sample in samples}


def test_fifty_kills_make_no_files_and_no_count_goes_backwards(tmp_path: Path) -> None:
    forks = Forks(tmp_path)
    try:
        assert [forks.fork() for _ in range(SIDE_BY_SIDE)] == list(range(SIDE_BY_SIDE))
        files, before = sorted(tmp_path.iterdir()), counted(tmp_path)
        assert len(files) == 3 * SIDE_BY_SIDE
        for _ in range(RESTARTS):
            forks.kill_oldest()
            forks.fork()
            after = counted(tmp_path)
            assert not {name for name in before if after[name] < before[name]}
            before = after
        assert sorted(tmp_path.iterdir()) == files
    finally:
        forks.end()
    after = counted(tmp_path)
    processes = SIDE_BY_SIDE + RESTARTS
    assert after["seen_total[('code', '200')]"] == processes
    assert after["took_seconds_bucket[('le', '2.0')]"] == processes
    assert after["took_seconds_sum[]"] == 1.5 * processes


EVERYTHING = """
import sys
from pathlib import Path
import django
django.setup()
from storage.api.metrics import seats
seats.claim(Path(sys.argv[1]))
from storage.api.errors import CODE
from storage.api.metrics import requests, routes
from storage.exceptions import StorageError
from storage.s3.errors import STATUS
from storage.s3.router import COPIES, ON_BUCKETS, ON_OBJECTS
def kinds(kind):
    return [kind, *(each for sub in kind.__subclasses__() for each in kinds(sub))]
paths = [path for first in (*routes._known(), "nothing") for path in (f"/{first}", f"/{first}/more")]
found = dict.fromkeys((*(routes.route_of(path) for path in paths), "s3:other"))
asked = [(route, method) for route in found for method in (*routes.METHODS, "NONE")]
asked += [(f"s3:{name}", method) for table in (ON_BUCKETS, ON_OBJECTS) for (method, _), name in table.items()]
asked += [("s3:ListBuckets", "GET"), *((f"s3:{name}", "PUT") for name in COPIES.values())]
for route, method in asked:
    for status in (100, 200, 300, 400, 500):
        request = requests.Request(route, method)
        request.answers(0.1)
        request.sent(1)
        request.ended(status, 0.1)
for code in {*CODE.values(), *(kind.code for kind in kinds(StorageError) if hasattr(kind, "code"))}:
    requests.problem(code)
for code in STATUS:
    requests.problem(f"s3:{code}")
"""


def test_there_is_room_for_every_combination_of_labels(tmp_path: Path) -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "occsite.settings"}
    subprocess.run([sys.executable, "-c", EVERYTHING, str(tmp_path)], cwd=PROJECT, env=environment, check=True)
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.db")}
    assert sizes == {"counter_0.db": seats.FILE_BYTES, "histogram_0.db": seats.FILE_BYTES}
    assert len(counted(tmp_path)) > 1500


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process count as before when the test is over."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(seats, "_descriptor", None)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")


def test_without_room_a_process_counts_alone(untouched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    before = values.ValueClass
    assert seats.claim(tmp_path) is None
    assert values.ValueClass is before
    assert seats.gathered() is None


def test_a_file_has_room_before_it_is_written_to(untouched: None, tmp_path: Path) -> None:
    assert seats.claim(tmp_path) == 0
    blocks = (tmp_path / "counter_0.db").stat().st_blocks
    assert blocks * 512 >= seats.FILE_BYTES


def test_a_damaged_file_is_replaced(untouched: None, tmp_path: Path) -> None:
    good, bad = tmp_path / "counter_0.db", tmp_path / "histogram_0.db"
    written = MmapedDict(str(good))
    written.write_value('["a", "a", {}, ""]', 5.0, 0.0)
    written.close()
    bad.write_bytes(b"\xff\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00")
    assert seats.claim(tmp_path) == 0
    assert counted(tmp_path) == {"a[]": 5.0}
    assert (tmp_path / "histogram_0.db").stat().st_size == seats.FILE_BYTES
