"""Copies vanish without an error: the cluster notices it by itself and makes them again. The cluster never raises a
false alarm.

Each scenario prints one line: when the cluster noticed, when it was whole, and which jobs it made. The tests look into
the directories of the nodes to see whether the cluster is whole.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import count, cycle, islice
from math import comb, sqrt
from pathlib import Path
from threading import Event

import pytest

from tests.faults.disks import Copy, all_copies, node_of, nodes_dir, put_back, replicas
from tests.faults.journal import Attempt
from tests.faults.load import answers, clients_at_work, load
from tests.faults.watch import Watch, jobs, largest_z, status
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 1024
GENERATION = 60.0  # Seconds until volumes are given the next generation (ADR 18).
CHURN = 60.0 * float(os.environ.get("MINUTES", "2"))  # Seconds of uploads and deletions without any fault.
RECLAIMED = 5 * PATIENCE
QUIET: Mapping[str, str] = {"CHUNK_SIZE": str(CHUNK_SIZE), "CENSUS_INTERVAL": "0", "AUDIT_INTERVAL": "0"}
"""Settings with which the cluster lists a volume only if it has a reason: there are no regular censuses and audits."""


def stored(installation: Installation, label: str, files: int, *, chunks: int, factor: int = 3) -> dict[str, int]:
    """Upload files of distinct chunks. Return chunk hash → the number of replicas that the chunk should have."""
    found: dict[str, int] = {}
    for number in range(files):
        data = bytes_of(f"{label} {number}", chunks * CHUNK_SIZE)
        attempt = installation.journal.upload(data, f"{label} {number}", factor=factor)
        assert attempt.status == 201, attempt
        found |= dict.fromkeys(hashes_of(data), factor)
    return found


def hashes_of(data: bytes) -> list[str]:
    """Return the chunk hashes of a file, in order."""
    return [sha256(data[start : start + CHUNK_SIZE]).hexdigest() for start in range(0, len(data), CHUNK_SIZE)]


def is_whole(installation: Installation, wanted: Mapping[str, int]) -> Callable[[], bool]:
    """Return a function that tells whether each chunk has at least the wanted number of copies now."""
    nodes = sorted(nodes_dir(installation).glob("node_*"))

    def look() -> bool:
        there = Counter(name for node in nodes for name in replicas(node))
        return all(there[chunk_hash] >= number for chunk_hash, number in wanted.items())

    return look


def await_health(installation: Installation) -> None:
    wait_until(lambda: not troubles(installation), PATIENCE, lambda: str(troubles(installation)))


def troubles(installation: Installation) -> list[str]:
    """List the troubles that ``/health`` reports."""
    _, health = installation.journal.ask("/health")
    return ["no answer"] if not health else [*health.get("failing", []), *health.get("degraded", [])]


# -- a node's directory as it was earlier -----------------------------------


@pytest.mark.parametrize("moment", ["stopped", "running"])
def test_a_node_that_is_rolled_back_is_recognised_and_made_whole(
    make_installation: Callable[..., Installation], tmp_path: Path, moment: str
) -> None:
    """No client downloads anything. The only reason to list a node is that its volume has an old generation."""
    installation = make_installation(**QUIET)
    system, node = installation.system, nodes_dir(installation) / "node_001"
    wanted = stored(installation, "before the snapshot", 8, chunks=25)
    system.stop()
    shutil.copytree(node, tmp_path / "snapshot")
    system.start()
    wanted |= stored(installation, "after the snapshot", 8, chunks=25)
    await_health(installation)  # The rebuilds of all sketches are over: a rebuild would notice missing copies too.
    watch = Watch(installation)

    if moment == "stopped":
        system.stop()
        exchange(node, tmp_path / "snapshot")
        watch.restart()
        system.start()
    else:
        exchange(node, tmp_path / "snapshot")
        watch.restart()
        wanted |= stored(installation, "after the exchange", 2, chunks=25)

    assert not is_whole(installation, wanted)()
    watch.await_notice(["volume.behind"], GENERATION + PATIENCE)
    whole = watch.await_whole(is_whole(installation, wanted), 2 * PATIENCE)
    scenario = f"a snapshot of one of five nodes put back while the cluster is {moment}"
    installation.settle(scenario)
    watch.tell(scenario, whole, true_alarms=["volume.behind", "sketch.contradicted"])
    system.stop()


def exchange(node: Path, other: Path) -> None:
    """Put a copy of another directory in the place of a node's directory."""
    shutil.copytree(other, node.with_name(f"new-{node.name}"))
    node.rename(node.with_name(f"away-{node.name}"))
    node.with_name(f"new-{node.name}").rename(node)


# -- copies that are removed by hand ----------------------------------------


@pytest.mark.parametrize("share", ["1 %", "3 copies"])
def test_a_census_notices_copies_that_were_removed_by_hand(
    make_installation: Callable[..., Installation], chance: random.Random, share: str
) -> None:
    interval = 15
    installation = make_installation(**{**QUIET, "CENSUS_INTERVAL": str(interval)})
    wanted = stored(installation, "by hand", 20, chunks=100)
    await_health(installation)
    watch = Watch(installation)
    everything: list[Copy] = [path for held in all_copies(installation).values() for path in held]
    for path in chance.sample(everything, 3 if share == "3 copies" else len(everything) // 100):
        path.unlink()
    watch.restart()
    watch.await_that(lambda: watch.census()["short"], interval + PATIENCE)
    whole = watch.await_whole(is_whole(installation, wanted), 2 * PATIENCE)
    scenario = f"{share} of {len(everything)} removed by hand, a census every {interval} s"
    installation.settle(scenario)
    watch.tell(scenario, whole, true_alarms=["census.contradicted", "sketch.contradicted"])
    installation.system.stop()


@pytest.mark.parametrize("share", ["1 %", "3 copies"])
def test_readers_notice_copies_that_were_removed_by_hand(
    make_installation: Callable[..., Installation], chance: random.Random, share: str
) -> None:
    """A reader asks one node for each chunk.

    The reader notices if the copy on the node that it asks is missing, and looks at no other copy.
    """
    installation = make_installation(**{**QUIET, "N_PRIME": "100000"})
    wanted = stored(installation, "read by all", 20, chunks=100)
    await_health(installation)
    watch = Watch(installation)
    held = all_copies(installation)
    removed: list[Copy]
    if share == "3 copies":
        drawn = chance.sample(sorted(held), len(held))
        firsts = (first for chunk_hash in drawn if (first := first_asked(installation, chunk_hash, held)))
        removed = list(islice(firsts, 3))
    else:
        everything = [path for paths in held.values() for path in paths]
        removed = chance.sample(everything, len(everything) // 100)
    noticeable = {path.name: 3 for path in removed if path == first_asked(installation, path.name, held)}
    for path in removed:
        path.unlink()
    watch.restart()
    files = [attempt.file_hash for attempt in installation.journal.attempts]

    def read_until(is_done: Callable[[], object]) -> Callable[[], object]:
        def read() -> object:
            for file_hash in files:
                installation.journal.download(file_hash)
            return is_done()

        return read

    watch.await_that(read_until(lambda: watch.events()["replica.missed"]), PATIENCE)
    whole = watch.await_whole(read_until(is_whole(installation, noticeable)), 2 * PATIENCE)
    left = sum(not path.exists() for path in removed)
    scenario = f"{share} removed by hand, all files read again and again"
    print(f"of {len(removed)} copies readers noticed {len(removed) - left}; they had to notice {len(noticeable)}")
    if left:
        installation.run("take_census")
        wait_until(is_whole(installation, wanted), 2 * PATIENCE)
    installation.settle(scenario)
    watch.tell(scenario, whole, true_alarms=["sketch.contradicted", "census.contradicted"])
    installation.system.stop()


def first_asked(installation: Installation, chunk_hash: str, held: Mapping[str, list[Copy]]) -> Copy | None:
    """Return the copy of a chunk that downloads read first.

    Returns None if other chunks share the chunk's registers, because then the sketches do not show where the copies
    are.
    """
    status, route = installation.journal.ask(f"/route/{chunk_hash}")
    assert status == 200, route
    candidates = route["candidates"]
    if sum(candidate["register"] for candidate in candidates) != len(held[chunk_hash]):
        return None
    return next(path for path in held[chunk_hash] if node_of(path) == candidates[0]["node_id"])


@pytest.mark.parametrize("found_by", ["a download", "a look back"])
def test_a_chunk_of_which_one_copy_is_put_back_is_brought_to_its_factor(
    make_installation: Callable[..., Installation], found_by: str
) -> None:
    """A download that succeeds reports at once that the chunk has a copy again.

    Without a download, the cluster finds the copy when it looks again at lost contents.
    """
    installation = make_installation(**QUIET)
    wanted = stored(installation, "lost and found", 4, chunks=3)
    await_health(installation)
    attempt = installation.journal.attempts[0]
    chunk_hash = hashes_of(bytes_of(attempt.name, attempt.size))[0]
    first, *_ = held = all_copies(installation)[chunk_hash]
    kept = first.read_bytes()
    watch = Watch(installation)
    for path in held:
        path.unlink()
    watch.restart()
    # This download is not recorded in the journal: the oracle would reject a 410 for an acknowledged file.
    status, problem = installation.journal.ask(f"/download/{attempt.file_hash}")
    assert status == 410, problem
    watch.await_that(lambda: not is_retrievable(installation, attempt), PATIENCE)
    wait_until(lambda: any("cannot be read" in trouble for trouble in troubles(installation)), PATIENCE)

    put_back(first, kept)
    watch.restart()
    if found_by == "a download":
        assert installation.journal.download(attempt.file_hash).status == 200
    whole = watch.await_whole(is_whole(installation, wanted), 150.0)
    wait_until(lambda: is_retrievable(installation, attempt), PATIENCE)
    await_health(installation)
    scenario = f"all copies of a chunk removed, one put back and found by {found_by}"
    installation.settle(scenario)
    watch.tell(scenario, whole)
    installation.system.stop()


def is_retrievable(installation: Installation, attempt: Attempt) -> bool:
    """Tell whether the health summary of a file says that the file can be read."""
    status, file = installation.journal.ask(f"/files/{attempt.file_hash}")
    assert status == 200, file
    return bool(file["retrievable"])


# -- deletions and churn, which are no losses -------------------------------


def test_deleted_files_of_two_copies_are_no_losses(make_installation: Callable[..., Installation]) -> None:
    """The other files have three copies, so a chunk with two copies could look like a chunk that has lost one."""
    grace = 40
    installation = make_installation(**{**QUIET, "RECLAIM_GRACE": str(grace)})
    stored(installation, "three copies", 20, chunks=10)
    kept = len(installation.journal.attempts)
    deleted = stored(installation, "two copies", 20, chunks=10, factor=2)
    await_health(installation)
    watch = Watch(installation)
    for attempt in installation.journal.attempts[kept:]:
        assert installation.journal.delete(attempt.file_hash).status == 204
    said = []

    def is_reclaimed() -> bool:
        time.sleep(0.5)
        below = status(installation)["estimates"]["chunks_below_target"]
        said.append((below["estimate"], below["lower_bound"]))
        return not deleted.keys() & all_copies(installation).keys()

    took = watch.await_whole(is_reclaimed, grace + 2 * PATIENCE)
    print(f"/status was asked {len(said)} times about chunks below their target, and said {sorted(set(said))}")
    # With two targets the estimate is noisy by a few chunks, up or down, while some of the deleted chunks are left.
    assert {lower for _, lower in said} == {0}
    assert max(estimate for estimate, _ in said) < len(deleted) / 20
    installation.settle("files of two copies deleted")
    watch.tell("files of two copies deleted", took)
    assert not jobs(installation)["trace losses"]
    installation.system.stop()


def test_healthy_churn_raises_no_alarm(make_installation: Callable[..., Installation], chance: random.Random) -> None:
    """Censuses and rebuilds run all the time.

    A census and a rebuild each compare the counts of the sketches with the copies on the volumes.
    """
    installation = make_installation(**{**QUIET, "CENSUS_INTERVAL": "15", "RECLAIM_GRACE": "2"})
    watch, stop, numbers = Watch(installation), Event(), count()

    def work(draw: random.Random) -> None:
        journal, standing = installation.journal, list[str]()
        while not stop.is_set():
            label = f"churn {next(numbers)}"
            data = bytes_of(label, draw.randrange(1, 24 * CHUNK_SIZE))
            assert journal.upload(data, label, factor=draw.choice((1, 2, 3))).status == 201
            standing.append(sha256(data).hexdigest())
            assert journal.download(draw.choice(standing)).status == 200
            while len(standing) > 10:
                assert journal.delete(standing.pop(draw.randrange(len(standing)))).status == 204
            stop.wait(0.5)

    with clients_at_work(work, stop, chance, 3):
        until = time.monotonic() + CHURN
        for node in cycle(sorted(nodes_dir(installation).glob("node_*"))):
            if time.monotonic() > until:
                break
            installation.run("rebuild_sketch", repr(node.name))
            time.sleep(5.0)
    installation.settle(f"{CHURN:.0f} s of healthy churn", within=RECLAIMED)
    await_health(installation)
    events = watch.events()
    assert events["census.done"] > 2 and events["sketch.rebuilt"] > 5
    watch.tell(f"{next(numbers)} files come and go in {CHURN:.0f} s", CHURN)
    assert not jobs(installation)["trace losses"]
    installation.system.stop()


# -- copies that spread -----------------------------------------------------


def test_copies_stay_spread_while_a_cluster_grows(
    make_installation: Callable[..., Installation], chance: random.Random
) -> None:
    """The cluster grows from five nodes to eight, and then to twelve, while clients upload, download and delete."""
    installation = make_installation(**{**QUIET, "RECLAIM_GRACE": "2"})
    stored(installation, "before the growth", 12, chunks=100)
    await_health(installation)
    for grown in (8, 12):
        watch = Watch(installation)
        with load(installation, f"up to {grown}", chance, chunk_size=CHUNK_SIZE, pause=2.0) as attempts:
            while len(list(nodes_dir(installation).glob("node_*"))) < grown:
                done = watch.events()["rebalance_all.done"]
                installation.run("add_node")
                wait_until(lambda: watch.events()["rebalance_all.done"] > done, 4 * PATIENCE)  # noqa: B023
        took = watch.await_whole(lambda: True, PATIENCE)
        assert set(answers(attempts)) == {"upload 201", "download 200", "delete 204"}
        scenario = f"growth to {grown} nodes under load"
        installation.settle(scenario, within=RECLAIMED)
        watch.tell(scenario, took)
        require_spread(installation, grown)
    installation.system.stop()


def require_spread(installation: Installation, nodes: int) -> None:
    """Fail if three nodes together hold many more chunks than expected, by their directories or by the sketches."""
    held = [frozenset(node_of(path) for path in paths) for paths in all_copies(installation).values()]
    triples = Counter(node_ids for node_ids in held if len(node_ids) == 3)
    expected = triples.total() / comb(nodes, 3)
    ((worst, most),) = triples.most_common(1)
    print(f"{triples.total()} chunks: {most} on the worst triple {sorted(worst)}, {expected:.1f} expected")
    assert most <= 2 * expected + 3 * sqrt(expected)
    said = status(installation)
    assert [found for found in said["blast_radius"] if found["out_of_bounds"]] == []
    # In one of a hundred healthy surveys, chance alone exceeds the bound.
    z = largest_z(installation)
    assert z is not None and z <= said["overlap"]["bound"] + 1
