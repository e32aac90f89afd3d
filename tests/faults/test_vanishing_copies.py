"""Copies vanish while nobody looks: the cluster notices by itself and is whole again, and cries wolf never.

Each scenario prints one line: when the cluster noticed, when it was whole, and which jobs it has made for it. Whether
it is whole is read off the folders.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.conftest import PATIENCE, Installation, bytes_of
from tests.faults.disks import nodes_dir
from tests.faults.watch import Watch
from tests.system.conftest import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 1024
GENERATION = 60.0  # seconds after which volumes are given the next generation (ADR 18)
QUIET: Mapping[str, str] = {"CHUNK_SIZE": str(CHUNK_SIZE), "CENSUS_INTERVAL": "0", "AUDIT_INTERVAL": "0"}
"""Nothing is listed unless there is a reason."""


def stored(installation: Installation, label: str, files: int, *, chunks: int, factor: int = 3) -> dict[str, int]:
    """Upload files of distinct chunks; the replicas that each chunk should have, by its hash."""
    found = {}
    for number in range(files):
        data = bytes_of(f"{label} {number}", chunks * CHUNK_SIZE)
        attempt = installation.journal.upload(data, f"{label} {number}", factor=factor)
        assert attempt.status == 201, attempt
        found |= dict.fromkeys(hashes_of(data), factor)
    return found


def hashes_of(data: bytes) -> list[str]:
    """The chunk hashes of a file, in order."""
    return [sha256(data[start : start + CHUNK_SIZE]).hexdigest() for start in range(0, len(data), CHUNK_SIZE)]


def copies(installation: Installation) -> dict[str, list[Path]]:
    """Chunk hash → its copies, as they lie in the folders."""
    found = defaultdict(list)
    for path in sorted(nodes_dir(installation).glob("node_*/chunks/??/*")):
        found[path.name].append(path)
    return found


def is_whole(installation: Installation, wanted: Mapping[str, int]) -> Callable[[], bool]:
    """Whether each chunk has as many copies as it should, asked again and again."""
    nodes = sorted(nodes_dir(installation).glob("node_*"))

    def look() -> bool:
        return all(
            sum((node / "chunks" / chunk_hash[:2] / chunk_hash).exists() for node in nodes) >= number
            for chunk_hash, number in wanted.items()
        )

    return look


def await_health(installation: Installation) -> None:
    wait_until(lambda: not troubles(installation), PATIENCE, lambda: str(troubles(installation)))


def troubles(installation: Installation) -> list[str]:
    """What ``/health`` says is wrong."""
    _, health = installation.journal.ask("/health")
    return ["no answer"] if not health else [*health.get("failing", []), *health.get("degraded", [])]


# -- a node's directory as it was earlier -----------------------------------


@pytest.mark.parametrize("moment", ["stopped", "running"])
def test_a_node_that_is_rolled_back_is_recognised_and_made_whole(
    make_installation: Callable[..., Installation], tmp_path: Path, moment: str
) -> None:
    """Nobody downloads anything, and no node is listed but by the reason that the volume itself gives."""
    installation = make_installation(**QUIET)
    system, node = installation.system, nodes_dir(installation) / "node_001"
    wanted = stored(installation, "before the snapshot", 8, chunks=25)
    system.stop()
    shutil.copytree(node, tmp_path / "snapshot")
    system.start()
    wanted |= stored(installation, "after the snapshot", 8, chunks=25)
    await_health(installation)  # The sketches have been built again, which would find what is missing, too.
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
    """Put another directory in the place of a node's."""
    shutil.copytree(other, node.with_name(f"new-{node.name}"))
    node.rename(node.with_name(f"away-{node.name}"))
    node.with_name(f"new-{node.name}").rename(node)
