"""The wall clock of PostgreSQL, of all other programs, or of all programs jumps by an hour: nothing is delayed.

``clock_step.c`` moves the wall clocks. The monotonic clocks stay right.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.disks import emptied, nodes_dir
from tests.faults.gates import kill_all
from tests.faults.journal import Action, Outcome
from tests.faults.load import answers, load
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

SOURCE = Path(__file__).with_name("clock_step.c")
COMPILER = shutil.which("cc")
CHUNK_SIZE = 65536
NOTICED = 30.0  # Seconds within which the cluster must notice that a node has gone or returned.
STORED_WITHIN = 5.0  # Seconds that an upload may take.
WHOSE = {
    "PostgreSQL alone": {"CLOCK_STEP_ONLY": "postgres"},
    "all but PostgreSQL": {"CLOCK_STEP_SKIP": "postgres"},
    "all programs": {},
}


class Clock:
    """The file that holds the number of seconds by which the clocks are moved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.move(0)

    def move(self, seconds: int) -> None:
        # The file is overwritten in place, because the programs have mapped it.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, seconds.to_bytes(8, sys.byteorder, signed=True))
        os.close(descriptor)


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("whose", WHOSE)
def test_a_clock_that_jumps_by_an_hour_delays_nothing(
    make_installation: Callable[..., Installation], chance: random.Random, tmp_path: Path, whose: str
) -> None:
    library = tmp_path / "clock_step.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
    clock = Clock(tmp_path / "step")
    installation = make_installation(
        INGEST_WORKERS="2",
        CHUNK_SIZE=str(CHUNK_SIZE),
        RECLAIM_GRACE=str(86400),  # A day is long enough that a jump by an hour ends no grace period.
        LD_PRELOAD=str(library),
        CLOCK_STEP=str(clock.path),
        **WHOSE[whose],
    )
    for seconds in (-3600, 0):
        jump(installation, chance, clock, whose, seconds)


def jump(installation: Installation, chance: random.Random, clock: Clock, whose: str, seconds: int) -> None:
    journal, system, gates = installation.journal, installation.system, installation.gates
    label = f"{whose} to {seconds} s ({time.monotonic():.0f})"
    with load(installation, label, chance, chunk_size=CHUNK_SIZE, pause=0.2) as attempts:
        orphan = leave_a_lease_behind(installation)
        clock.move(seconds)
        jumped_at = time.monotonic()
        for number in range(10):
            began = time.monotonic()
            attempt = journal.upload(bytes_of(f"{label} {number}", 2 * CHUNK_SIZE), label)
            assert attempt.status == 201
            assert time.monotonic() - began < STORED_WITHIN
        gates.open("rebuild.list")
        noticed = {}
        with emptied(nodes_dir(installation) / "node_004"):
            noticed["away"] = wait_until(lambda: state_of(installation, "node_004") == "offline", NOTICED)
        noticed["back"] = wait_until(lambda: state_of(installation, "node_004") == "active", NOTICED)
        wait_until(lambda: journal.ask(f"/jobs/{orphan}")[1]["state"] == "succeeded", PATIENCE)
        noticed["orphan"] = time.monotonic() - jumped_at
        clocks = [words for words in system.health().get("degraded", []) if words.startswith("the clock of")]
        assert bool(clocks) == (whose != "all programs" and seconds != 0), clocks
    print(f"{label}: {answers(attempts)}; seconds until noticed: { {k: round(v, 1) for k, v in noticed.items()} }")
    assert {attempt.outcome for attempt in attempts} == {Outcome.ACKNOWLEDGED}, answers(attempts)
    assert {attempt.status for attempt in attempts if attempt.action is Action.UPLOAD} == {201}
    installation.settle(f"the clock of {whose} jumps by an hour", since=jumped_at)


def leave_a_lease_behind(installation: Installation) -> str:
    """Kill a process of the maintenance worker while it owns a job. Return the id of the job."""
    installation.gates.close("rebuild.list")
    job = installation.run("rebuild_sketch", repr("node_001"))
    kill_all([installation.gates.await_arrival("rebuild.list")])
    return job


def state_of(installation: Installation, node_id: str) -> str:
    nodes = installation.journal.ask("/status")[1]["nodes"]
    return str(next(node["state"] for node in nodes if node["node_id"] == node_id))
