"""Sketches grow from 10,000 to 1,280,000 registers under load, and no trusted sketch denies a chunk that is there.

Clients upload, download and delete. The number of registers is N_PRIME times a power of two: 2^2, 2^4 and 2^7 here.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketches.store import trusted
from storage.cluster.topology import Member, Topology
from storage.models import Cluster
from storage.tracking.store import store_of
from tests.faults.load import answers, load, reclaiming
from tests.support.installation import PATIENCE, Installation, log_of
from tests.support.packs import places_in
from tests.support.system import PROJECT

pytestmark = [pytest.mark.system, pytest.mark.faults]

BASE, SIZES = 10_000, (40_000, 160_000, 1_280_000)
CHUNK_SIZE = 4096
GROWTH_LIMIT = 2 * PATIENCE  # Seconds within which the sketches of all nodes must reach the next size.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE), N_PRIME=str(BASE))


# -- inside the system -----------------------------------------------------


def grow_and_watch() -> None:
    """Let the sketches grow through all sizes.

    Look again and again for chunks that a trusted sketch denies, and print how many there were.
    """
    seen: Counter[str] = Counter()
    mixed, denied = 0, []
    for size in SIZES:
        Cluster.grow(size)
        deadline = time.monotonic() + GROWTH_LIMIT
        while True:
            topology = Topology.load()
            sizes = sizes_of(topology)
            mixed += len(set(sizes)) > 1
            for member in topology.members:
                denied += denials(topology, member, seen)
            if set(sizes) == {size}:
                break
            assert time.monotonic() < deadline, f"{sizes} instead of {size}"
    json.dump({**seen, "mixed": mixed, "denied": denied}, sys.stdout)


def sizes_of(topology: Topology) -> list[int | None]:
    headers = store_of(topology.cluster).lookup([m.node_id for m in topology.members], []).headers
    return [header.n_prime if header else None for header in headers.values()]


def denials(topology: Topology, member: Member, seen: Counter[str]) -> list[str]:
    """List copies for which a trusted sketch had a zero register, and that were there before and after the lookup in
    the sketch.

    A copy that was removed and written again during the lookup has another change time, and is not listed.
    """
    before = copies(member)
    lookup = store_of(topology.cluster).lookup([member.node_id], list(before))
    after = copies(member)
    # A node's sketch epoch only rises. If the node and the sketch have the same epoch after the lookup, the sketch was
    # trusted during the lookup.
    epochs = {now.node_id: now.sketch_epoch for now in Topology.load().members}
    if not trusted(lookup.headers[member.node_id], epochs[member.node_id], lookup.run_id):
        seen["untrusted"] += 1
        return []
    seen["looks"] += 1
    seen["copies"] += len(before)
    zeros = np.array(list(before))[lookup.counts[0] == 0]
    return [f"{member.node_id} {name}" for name in zeros if after.get(name) == before[name]]


def copies(member: Member) -> dict[str, tuple[int, int]]:
    """Map each chunk hash to a value that a later copy of the chunk would not have, without the code under test.

    For a file, the value is its inode and its change time. For a record of a pack, the value is its place.
    """
    root = Path(member.lane.volume.root)  # type: ignore[attr-defined]
    found = places_in(root)
    for path in root.glob("chunks/*/*"):
        if len(path.name) == 64:
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found[path.name] = (status.st_ino, status.st_ctime_ns)
    return found


def print_inexact() -> None:
    """Compare each node's sketch with a sketch of the volume's listing.

    Print for each node its number of registers, and how many registers count too much and too little.
    """
    topology = Topology.load()
    snapshot = store_of(topology.cluster).snapshot([member.node_id for member in topology.members])
    found = {}
    for member in topology.members:
        sketch = snapshot.sketches[member.node_id]
        listed = type(sketch)(sketch.n_prime, sketch.tau, sketch.seed)
        listed.add([replica.chunk_hash for replica in member.lane.volume.replicas()])
        over, under = sketch.registers > listed.registers, sketch.registers < listed.registers
        found[member.node_id] = [sketch.n_prime, int(over.sum()), int(under.sum())]
    json.dump(found, sys.stdout)


def inside(installation: Installation, function: str) -> Any:
    """Call a function of this module in a process of the system. Return the document that the function prints."""
    code = f"from tests.faults.test_growth_load import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
        cwd=PROJECT,
        env=installation.system.environment | {"LOG_LEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        timeout=len(SIZES) * GROWTH_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_denied_while_sketches_grow_under_load(
    installation: Installation, chance: random.Random, tmp_path: Path
) -> None:
    begun = time.monotonic()
    with (
        reclaiming(installation, tmp_path / "stop") as reclaimed,
        load(installation, "during growth", chance, chunk_size=CHUNK_SIZE) as attempts,
    ):
        seen = inside(installation, "grow_and_watch")
    outcomes = answers(attempts)
    print(f"{time.monotonic() - begun:.0f} s:", seen, dict(outcomes), dict(reclaimed))
    assert seen["denied"] == []
    assert seen["copies"] > 10_000 and seen["mixed"] > 0 and reclaimed["removed"] > 0
    assert set(outcomes) == {"upload 201", "download 200", "delete 204"}
    installation.settle("sketches grow under load")
    found = inside(installation, "print_inexact")
    print(found)
    assert {size for size, _, _ in found.values()} == {SIZES[-1]}
    assert {under for _, _, under in found.values()} == {0}
    for program in ("api", "worker", "maintenance"):
        assert "Traceback" not in log_of(installation.system, program), program
