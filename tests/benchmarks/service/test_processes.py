"""The usage measured for a tree of processes agrees with the usage that the processes report themselves."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.service.processes import trees, watch

SPAWN_AND_WORK = """
import os, subprocess, sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

sys.stdin.readline()
busy = "import time\\nwhile time.process_time() < .3: pass"
subprocess.run([sys.executable, "-c", busy], check=True)
held = bytearray(b"1") * (64 << 20)
with open(sys.argv[1], "wb") as file:
    file.write(held[: 3 << 20])
    file.flush()
    os.fsync(file.fileno())
del held
used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
print(sum(one.ru_utime + one.ru_stime for one in used), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    written = tmp_path_factory.mktemp("written") / "file"
    argv = [sys.executable, "-c", SPAWN_AND_WORK, str(written)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_tree_with_a_child_that_has_ended(child: subprocess.Popen[str]) -> None:
    assert child.stdin and child.stdout
    end = watch(lambda: trees({"child": child.pid}))
    child.stdin.write("go\n")
    child.stdin.flush()
    said = float(child.stdout.readline())
    used = end()
    # The child used some processor time before the measurement began, and the kernel counts in hundredths of a second.
    assert said >= 0.3
    assert said - 0.3 <= used.usage.seconds <= said + 0.1
    assert used.usage.seconds >= 0.25, "the grandchild has ended, but its time was used"
    assert used.peaks["child"] >= 64, "what was held and given back counts"
    assert used.usage.written >= 3 << 20


def test_a_tree_holds_all_that_descend_from_its_root(child: subprocess.Popen[str]) -> None:
    found = trees({"here": os.getpid(), "there": child.pid})
    assert found["here"][0] == os.getpid()
    assert child.pid in found["here"]
    assert found["there"] == [child.pid]
