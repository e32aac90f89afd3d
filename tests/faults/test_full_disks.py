"""Disks of nodes have no block or no inode left. Deletions make room, and the answer to a refused upload says what is
lacking.

Each node has a file system of its own, which needs root and the right to mount.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from storage.volumes.base import HEADROOM_FILES
from tests.faults.disks import CannotMount, Disk, all_of, limited_disks, nodes_dir, replicas, require_files
from tests.faults.journal import Outcome
from tests.faults.test_disks import await_states, states
from tests.support.installation import PATIENCE, Installation, bytes_of, log_of
from tests.support.packs import trashed_in
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 4096
CHUNKS = 200  # There are so many chunks that their names fill several blocks of a directory.
OWN_INODES = 300  # The inodes of an empty volume: 256 directories, and a few files.
NODES = ["node_000", "node_001", "node_002"]

Kinds = Mapping[str, tuple[str, ...]]
Limited = Callable[[Kinds], AbstractContextManager[tuple[Installation, dict[str, Disk]]]]


@pytest.fixture
def limited(make_installation: Callable[..., Installation], tmp_path: Path) -> Limited:
    """Start an installation of three nodes on file systems of the given kinds. Skip where nothing can be mounted."""

    @contextmanager
    def start(kinds: Kinds) -> Iterator[tuple[Installation, dict[str, Disk]]]:
        made = make_installation(CHUNK_SIZE=str(CHUNK_SIZE), NUM_NODES=str(len(NODES)), RECLAIM_GRACE="1")
        try:
            with limited_disks(made, tmp_path, kinds) as disks:
                await_states(made, ["active"] * len(NODES))
                yield made, disks
        except CannotMount as error:
            pytest.skip(f"no disk of a node's own: {error}")
        finally:
            made.system.stop()

    return start


def removed(installation: Installation) -> list[str]:
    """List the copies in the trash of all nodes."""
    packed = [name for folder in nodes_dir(installation).glob("node_*") for name, _ in trashed_in(folder)]
    return [*(path.name for path in nodes_dir(installation).glob("node_*/trash/*")), *packed]


def test_what_is_deleted_makes_room_on_disks_without_a_free_block_or_inode(limited: Limited) -> None:
    kinds = {"node_000": ("ext4",), "node_001": ("ext4", "-N", "8192"), "node_002": ("tmpfs", "nr_inodes=8192")}
    with limited(kinds) as (installation, disks):
        journal = installation.journal
        file = journal.upload(bytes_of("goes", CHUNKS * CHUNK_SIZE), "goes")
        stays = journal.upload(bytes_of("stays", CHUNK_SIZE), "stays")
        assert (file.status, stays.status) == (201, 201), (file, stays)
        used_up = {"node_000": "blocks", "node_001": "inodes", "node_002": "inodes"}
        with all_of(disks[node_id].used_up(what) for node_id, what in used_up.items()):
            for disk in disks.values():
                found = os.statvfs(disk.backing)
                assert not found.f_bavail or not found.f_favail
            await_states(installation, ["full"] * len(NODES))
            refused = journal.upload(bytes_of("more", CHUNK_SIZE), "more")
            assert refused.status == 507, refused
            assert "free inodes and free space" in refused.detail or "free space and free inodes" in refused.detail
            assert journal.delete(file.file_hash).outcome is Outcome.ACKNOWLEDGED
            wait_until(
                lambda: all(len(replicas(disk.folder)) == 1 for disk in disks.values()) and not removed(installation),
                PATIENCE,
                lambda: str([len(replicas(disk.folder)) for disk in disks.values()]),
            )
            rooms = {node_id: os.statvfs(disk.backing) for node_id, disk in disks.items()}
            assert rooms["node_000"].f_bavail * rooms["node_000"].f_frsize >= CHUNKS * CHUNK_SIZE
            if not (disks["node_001"].folder / "packs").exists():  # The copies in packs have no inodes to free.
                assert min(rooms["node_001"].f_favail, rooms["node_002"].f_favail) >= CHUNKS
            assert journal.download(stays.file_hash).outcome is Outcome.ACKNOWLEDGED
        await_states(installation, ["active"] * len(NODES))
        again = journal.upload(bytes_of("again", CHUNKS * CHUNK_SIZE), "again")
        assert again.status == 201, again
        wait_until(lambda: all((disk.folder / "spare").exists() for disk in disks.values()), PATIENCE)
        installation.settle("deleting on disks without a block or an inode")


def test_nodes_that_run_out_of_inodes_are_full_before_a_write_fails(limited: Limited) -> None:
    few = ("tmpfs", f"nr_inodes={HEADROOM_FILES + OWN_INODES + 50}")
    with limited(dict.fromkeys(NODES, few)) as (installation, disks):
        require_files(installation, "their copies take no inodes")
        for number in range(2 * OWN_INODES):
            attempt = installation.journal.upload(bytes_of(f"small {number}", 100), f"small {number}")
            if attempt.status != 201:
                break
        assert attempt.status == 507, attempt
        assert "free inodes" in attempt.detail, attempt
        assert number > 50
        await_states(installation, ["full"] * len(NODES))
        assert min(os.statvfs(disk.backing).f_favail for disk in disks.values()) > HEADROOM_FILES - 20
        assert "replica.unwritten" not in log_of(installation.system, "worker")
        for known in installation.journal.attempts[:60]:
            assert installation.journal.delete(known.file_hash).outcome is Outcome.ACKNOWLEDGED
        await_states(installation, ["active"] * len(NODES))
        assert installation.journal.upload(b"there is room again", "room").status == 201, states(installation)
        installation.settle("uploads of small files until inodes run out")
