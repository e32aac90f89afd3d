"""Disks fill up, are unmounted, become read-only, change places and hang. No answer says that a stored file is gone.

Uploads use the disks without a fault while enough such disks are left.

Most tests give each node a disk of its own: a file system in memory, mounted while the installation runs. These tests
need root and the right to mount. The tests share one installation. The tests that mount nothing come first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from storage.services import probe
from storage.volumes import lane
from tests.faults.disks import (
    CannotMount,
    Disk,
    all_of,
    copies,
    emptied,
    exchanged,
    freezable,
    hanging,
    leftovers,
    nodes_dir,
    own_disks,
    replicas,
    require_files,
)
from tests.faults.journal import Attempt, Outcome
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 16384
CHUNKS = 24  # There are so many chunks that every node is chosen for some of them.
NODES = 5
KEPT_OPEN = "no disk with open packs can be made read-only by a command"


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(CHUNK_SIZE=str(CHUNK_SIZE), NUM_NODES=str(NODES))


@pytest.fixture(scope="module")
def disks(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Disk]]:
    """Map each node id to the node's own disk. The tests are skipped where nothing can be mounted."""
    try:
        with own_disks(installation, tmp_path_factory.mktemp("disks")) as mounted:
            await_states(installation, ["active"] * NODES)
            yield mounted
    except CannotMount as error:
        pytest.skip(f"no disk of a node's own: {error}")


@pytest.fixture
def file(installation: Installation, request: pytest.FixtureRequest) -> Attempt:
    """A file that is stored before the fault begins."""
    label = f"stands while {request.node.name}"
    attempt = installation.journal.upload(bytes_of(label, CHUNKS * CHUNK_SIZE - 100), label)
    assert attempt.status == 201, attempt
    return attempt


def states(installation: Installation) -> list[str]:
    """Return the states of the nodes, in the order of their ids."""
    _, status = installation.journal.ask("/status")
    return [node["state"] for node in status["nodes"]] if status else []


def await_states(installation: Installation, wanted: Sequence[str]) -> None:
    wait_until(lambda: states(installation) == list(wanted), PATIENCE, lambda: str(states(installation)))


def readable(installation: Installation, file: Attempt) -> bool:
    return installation.journal.download(file.file_hash).outcome is Outcome.ACKNOWLEDGED


@contextmanager
def upload_meeting(installation: Installation, label: str, fault: AbstractContextManager[None]) -> Iterator[Attempt]:
    """Upload, and begin the fault between the choice of the nodes and the first write to them.

    The ``with`` block runs when the upload has been answered. The fault lasts until the block ends.
    """
    data = bytes_of(label, CHUNKS * CHUNK_SIZE)
    installation.gates.close("ingest.write")
    with ThreadPoolExecutor(1) as client, ExitStack() as lasting:
        answer = client.submit(installation.journal.upload, data, label)
        try:
            installation.gates.await_arrival("ingest.write")
            lasting.enter_context(fault)
        finally:
            installation.gates.open("ingest.write")
        yield answer.result(PATIENCE)


def replication(installation: Installation, attempt: Attempt) -> set[int]:
    """Count the copies of each chunk of a file on the disks. Return the distinct numbers of copies."""
    data = bytes_of(attempt.name, attempt.size)
    return {len(copies(installation, data[i : i + CHUNK_SIZE])) for i in range(0, len(data), CHUNK_SIZE)}


# -- tests that mount nothing ------------------------------------------------


def test_empty_mount_points_never_say_that_a_file_is_gone(installation: Installation, file: Attempt) -> None:
    """This test mounts nothing: an empty directory looks like the mount point of a disk that is not mounted."""
    with all_of(emptied(folder) for folder in sorted(nodes_dir(installation).glob("node_*"))):
        for moment in ("at once", "when the nodes are known to be away"):
            download = installation.journal.download(file.file_hash)
            assert download.status == 503, f"{moment}: {download}"
            upload = installation.journal.upload(bytes_of(f"without disks {moment}", CHUNK_SIZE), "without disks")
            assert upload.status == 503, f"{moment}: {upload}"
            await_states(installation, ["offline"] * NODES)
    await_states(installation, ["active"] * NODES)
    wait_until(lambda: readable(installation, file), PATIENCE)
    installation.settle("all disks loose, and back")


def test_disks_that_change_places_are_used_by_neither(installation: Installation, file: Attempt) -> None:
    folders = [nodes_dir(installation) / node_id for node_id in ("node_000", "node_001")]
    with exchanged(*folders):
        before = [replicas(folder) for folder in folders]
        attempt = installation.journal.upload(bytes_of("while two disks", CHUNKS * CHUNK_SIZE), "while two disks")
        assert attempt.status == 201, attempt
        assert replication(installation, attempt) == {3}
        await_states(installation, ["offline", "offline", "active", "active", "active"])
        assert readable(installation, file)
        assert [replicas(folder) for folder in folders] == before
    await_states(installation, ["active"] * NODES)
    installation.settle("two disks in each other's place, and back")


def test_a_disk_that_hangs_costs_a_request_a_few_time_limits_and_no_answer(
    installation: Installation, file: Attempt
) -> None:
    """Every process notices the hanging disk by itself, and tries it again after each back-off of its breaker."""
    with hanging(nodes_dir(installation) / "node_000" / "identity"):
        for number in range(3):
            begun = time.monotonic()
            label = f"while a disk hangs {number}"
            attempt = installation.journal.upload(bytes_of(label, CHUNK_SIZE), label)
            assert attempt.status == 201, attempt
            assert readable(installation, file) and readable(installation, attempt)
            took = time.monotonic() - begun
            print(f"an upload and two downloads took {took:.1f} s")
            assert took < 4 * lane.TIMEOUT
        await_states(installation, ["offline", "active", "active", "active", "active"])
    await_states(installation, ["active"] * NODES)
    installation.settle("a disk that hangs, and answers again")


def test_a_read_that_hangs_is_served_by_another_node(installation: Installation, file: Attempt) -> None:
    """Before the disk hangs, every process reads the chunk from memory, without a thread of the volume's lane.

    The read that hangs must nevertheless run in the lane, because only the lane has a time limit.
    """
    require_files(installation, "no copy can hang alone")
    assert all(readable(installation, file) for _ in range(8)), "and by now every process reads it in place"
    chunk = bytes_of(file.name, file.size)[:CHUNK_SIZE]
    _, route = installation.journal.ask(f"/route/{hashlib.sha256(chunk).hexdigest()}")
    first = next(c["node_id"] for c in route["candidates"] if c["node_id"] in copies(installation, chunk))
    with hanging(copies(installation, chunk)[first]):
        begun = time.monotonic()
        assert readable(installation, file), installation.journal.attempts[-1]
        took = time.monotonic() - begun
        print(f"the download took {took:.1f} s")
        assert lane.TIMEOUT <= took < 2 * lane.TIMEOUT
    installation.settle("a read that hangs")


def test_a_node_that_is_back_takes_uploads_when_another_one_goes_at_once(
    make_installation: Callable[..., Installation],
) -> None:
    """A breaker that a process opened while the first node was away does not matter when the node is back.

    There are three nodes. A process that took two nodes for absent could acknowledge no upload.
    """
    installation = make_installation(CHUNK_SIZE=str(CHUNK_SIZE), NUM_NODES="3")
    first, second, _ = sorted(nodes_dir(installation).glob("node_*"))

    def upload() -> Attempt:
        label = f"one of three away {len(installation.journal.attempts)}"
        return installation.journal.upload(bytes_of(label, 4 * CHUNK_SIZE), label)

    with emptied(first):
        back_at = time.monotonic() + 20
        while time.monotonic() < back_at:
            assert (attempt := upload()).status == 201, attempt
            time.sleep(0.1)
    back_at = time.monotonic()
    await_states(installation, ["active"] * 3)
    seen_after = time.monotonic() - back_at
    print(f"the node was seen to be back after {seen_after:.1f} s")
    assert seen_after < 3 * probe.ROUND
    with emptied(second):
        begun = time.monotonic()
        refused = 0
        while (attempt := upload()).status != 201:
            refused += 1
            assert time.monotonic() - begun < PATIENCE, attempt
            time.sleep(0.1)
        took = time.monotonic() - begun
        print(f"an upload was stored after {took:.1f} s, {refused} were refused before")
        assert took < 3.0
    await_states(installation, ["active"] * 3)
    installation.settle("a node back, and another one gone at once")
    installation.system.stop()


# -- disks that fill up ----------------------------------------------------


def test_what_finds_a_disk_full_in_mid_upload_goes_to_another(
    installation: Installation, disks: Mapping[str, Disk], file: Attempt
) -> None:
    chosen = [disks["node_001"], disks["node_003"]]
    before = [replicas(disk.folder) for disk in chosen]
    with upload_meeting(installation, "finds two disks full", all_of(disk.full() for disk in chosen)) as attempt:
        assert attempt.status == 201, attempt
        assert replication(installation, attempt) == {3}
        assert [replicas(disk.folder) for disk in chosen] == before
        assert leftovers(installation) == []
        assert readable(installation, file)
        await_states(installation, ["active", "full", "active", "full", "active"])
    await_states(installation, ["active"] * NODES)
    installation.settle("two of five disks full in mid-upload")


def test_what_finds_room_for_two_copies_only_gets_the_third_later(
    installation: Installation, disks: Mapping[str, Disk]
) -> None:
    chosen = [disks[node_id] for node_id in ("node_000", "node_002", "node_004")]
    with upload_meeting(installation, "finds three disks full", all_of(disk.full() for disk in chosen)) as attempt:
        assert attempt.status == 201, attempt
        assert replication(installation, attempt) == {2}
    installation.settle("three of five disks full in mid-upload")


def test_when_all_disks_are_full_an_upload_is_refused_and_leaves_nothing_behind(
    installation: Installation, disks: Mapping[str, Disk], file: Attempt
) -> None:
    before = [replicas(disk.folder) for disk in disks.values()]
    with upload_meeting(
        installation, "finds all disks full", all_of(disk.full() for disk in disks.values())
    ) as attempt:
        assert attempt.status == 507, attempt
        at_once = installation.journal.upload(bytes_of("is refused at once", CHUNK_SIZE), "is refused at once")
        assert at_once.status == 507, at_once
        for refused in (attempt, at_once):
            assert installation.journal.ask(f"/files/{refused.file_hash}")[0] == 404
        assert [replicas(disk.folder) for disk in disks.values()] == before
        assert leftovers(installation) == []
        assert readable(installation, file)
    await_states(installation, ["active"] * NODES)
    assert installation.journal.upload(b"there is room again", "there is room again").status == 201
    installation.settle("all disks full in mid-upload")


# -- disks that come loose -------------------------------------------------


def test_a_disk_that_comes_loose_in_mid_upload_is_not_written_below(
    installation: Installation, disks: Mapping[str, Disk], file: Attempt
) -> None:
    with upload_meeting(installation, "finds a disk loose", disks["node_002"].loose()) as attempt:
        assert attempt.status == 201, attempt
        assert readable(installation, file)
        await_states(installation, ["active", "active", "offline", "active", "active"])
        assert readable(installation, file)
    await_states(installation, ["active"] * NODES)
    installation.settle("a disk loose in mid-upload, and back")


# -- disks that become read-only -------------------------------------------


def test_a_disk_that_turns_read_only_is_read_and_not_written(
    installation: Installation, disks: Mapping[str, Disk], file: Attempt
) -> None:
    require_files(installation, KEPT_OPEN)
    before = replicas(disks["node_000"].folder)
    with upload_meeting(installation, "finds a disk read-only", disks["node_000"].read_only()) as attempt:
        assert attempt.status == 201, attempt
        assert replication(installation, attempt) == {3}
        assert replicas(disks["node_000"].folder) == before
    await_states(installation, ["active"] * NODES)
    installation.settle("a disk read-only in mid-upload, and writable again")


def test_when_all_disks_are_read_only_what_they_hold_is_served(
    installation: Installation, disks: Mapping[str, Disk], file: Attempt
) -> None:
    require_files(installation, KEPT_OPEN)
    fault = all_of(disk.read_only() for disk in disks.values())
    with upload_meeting(installation, "finds all disks read-only", fault) as attempt:
        assert attempt.status in (503, 507), attempt
        for _ in range(5):  # A breaker that opened for writes must not refuse reads.
            assert readable(installation, file), installation.journal.attempts[-1]
    await_states(installation, ["active"] * NODES)
    installation.settle("all disks read-only, and writable again")


# -- writes that hang ------------------------------------------------------


@pytest.fixture
def freeze(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> Iterator[tuple[Installation, Callable[[], AbstractContextManager[None]]]]:
    """A new installation, and a function that returns a context in which the disk of node_001 is frozen."""
    made = make_installation(CHUNK_SIZE=str(CHUNK_SIZE), NUM_NODES=str(NODES))
    try:
        with freezable(nodes_dir(made) / "node_001", tmp_path / "disk") as frozen:
            await_states(made, ["active"] * NODES)
            yield made, frozen
    except CannotMount as error:
        pytest.skip(f"no disk that can be frozen: {error}")


def test_a_write_that_hangs_is_made_elsewhere_and_is_known_when_it_ends(
    freeze: tuple[Installation, Callable[[], AbstractContextManager[None]]],
) -> None:
    installation, frozen = freeze
    before = replicas(nodes_dir(installation) / "node_001")
    with upload_meeting(installation, "finds a disk frozen", frozen()) as attempt:
        assert attempt.status == 201, attempt
        assert replication(installation, attempt) == {3}
        assert replicas(nodes_dir(installation) / "node_001") == before
        assert readable(installation, attempt)
    late = nodes_dir(installation) / "node_001"
    wait_until(lambda: replicas(late) != before, PATIENCE, lambda: "no write that had hung has ended")
    installation.run("audit_node", repr("node_001"))  # The audit finds the surplus copies.
    installation.settle("a disk frozen in mid-upload, whose writes end later")
