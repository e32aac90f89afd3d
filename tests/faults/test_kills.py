"""At every named phase of an operation, SIGKILL ends one process of the maintenance worker, and then the whole worker.

``PHASES`` lists the phases. The phases of one operation share an installation. The operations run side by side, because
the tests mostly wait for leases of killed processes to end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis

from occsite.launch.embedded import redis_url
from tests.faults.gates import ARRIVAL_LIMIT, kill_all
from tests.faults.journal import Attempt
from tests.faults.wrecks import Wreck, accept_batch
from tests.support.installation import Installation, bytes_of, copies
from tests.support.packs import PackedCopy
from tests.support.system import alive, wait_until

pytestmark = pytest.mark.system

CHUNK_SIZE = 65536
CHUNKS = 10  # The number of chunks of each file.
ENVIRONMENT = {
    "drain": {"NUM_NODES": "13"},  # Each of ten kills drains one node, and three nodes must be left.
    "reclaim": {"RECLAIM_GRACE": "1"},
}
VICTIMS = ("process", "whole worker")

Begin = Callable[[Installation, str], object]


def upload(installation: Installation, label: str) -> Attempt:
    attempt = installation.journal.upload(bytes_of(label, CHUNKS * CHUNK_SIZE), label)
    assert attempt.status == 201, attempt
    return attempt


def raise_factor(installation: Installation, label: str) -> None:
    rebalance(installation, upload(installation, label), 5)


def lower_factor(installation: Installation, label: str) -> None:
    rebalance(installation, upload(installation, label), 2)


def rebalance(installation: Installation, of: Attempt, factor: int) -> None:
    status, _ = installation.journal.order(f"/rebalance/{of.file_hash}", replication_factor=factor)
    assert status == 202, status


def damage_a_copy(installation: Installation, label: str) -> None:
    """Overwrite one copy, and ask for a deep verification, which finds the bad copy and queues its repair."""
    attempt = upload(installation, label)
    copies(installation, bytes_of(label, CHUNKS * CHUNK_SIZE)[:CHUNK_SIZE])[0].write_bytes(bytes(CHUNK_SIZE))
    status, _ = installation.journal.ask(f"/verify/{attempt.file_hash}?deep=true")
    assert status == 200, status


def delete_a_file(installation: Installation, label: str) -> None:
    """Delete a file that shares half of its chunks with another file. Call reclaim when the grace period is over."""
    data = bytes_of(label, CHUNKS * CHUNK_SIZE)
    assert installation.journal.upload(data[: len(data) // 2], f"{label}: the other").status == 201
    installation.journal.delete(upload(installation, label).file_hash)
    installation.send("storage.reclaim", countdown=1.5)


def audit_a_surplus(installation: Installation, label: str) -> None:
    """Copy a chunk by hand to a node that has no copy of it, and queue an audit of that node."""
    chunk = upload_and_split(installation, label)[0]
    held = copies(installation, chunk)
    nodes = installation.system.storage_dir / "nodes"
    spare = next(node for node in sorted(nodes.iterdir()) if not any(path.is_relative_to(node) for path in held))
    if isinstance(held[0], PackedCopy):
        PackedCopy(spare, held[0].name).write_bytes(chunk)
    else:
        shutil.copy(held[0], spare / held[0].relative_to(nodes / held[0].relative_to(nodes).parts[0]))
    installation.run("audit_node", repr(spare.name))


def repair_the_cluster(installation: Installation, label: str) -> None:
    """Remove copies of two chunks by hand, and queue a repair of the cluster."""
    chunks = upload_and_split(installation, label)
    for path in (*copies(installation, chunks[0])[:1], *copies(installation, chunks[1])[:2]):
        path.unlink()
    installation.run("repair_cluster")


def drain_a_node(installation: Installation, label: str) -> None:
    upload(installation, label)
    installation.run("drain_fullest")


def add_a_node(installation: Installation, label: str) -> None:
    """Add a node. A rebalance then moves copies from the other nodes to the new node."""
    upload(installation, label)
    installation.run("add_node")


def upload_and_split(installation: Installation, label: str) -> list[bytes]:
    upload(installation, label)
    data = bytes_of(label, CHUNKS * CHUNK_SIZE)
    return [data[start : start + CHUNK_SIZE] for start in range(0, len(data), CHUNK_SIZE)]


def empty_redis(installation: Installation, label: str) -> None:
    upload(installation, label)
    with redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client:
        client.flushall()


# Phase → the function that brings a process of the maintenance worker to the phase.
PHASES: dict[str, Begin] = {
    "rebalance.locate": raise_factor,
    "rebalance.count": raise_factor,
    "rebalance.write": raise_factor,
    "rebalance.trim": lower_factor,
    "repair.judge": damage_a_copy,
    "repair.locate": damage_a_copy,
    "repair.count": damage_a_copy,
    "repair.write": damage_a_copy,
    "reclaim.mark": delete_a_file,
    "reclaim.trash": delete_a_file,
    "reclaim.forget": delete_a_file,
    "reclaim.purge": delete_a_file,
    "rebuild.open": empty_redis,
    "rebuild.list": empty_redis,
    "rebuild.swap": empty_redis,
    "audit.list": audit_a_surplus,
    "audit.trim": audit_a_surplus,
    "audit.read": audit_a_surplus,
    "repair_all.locate": repair_the_cluster,
    "repair_all.count": repair_the_cluster,
    "repair_all.write": repair_the_cluster,
    "drain.locate": drain_a_node,
    "drain.count": drain_a_node,
    "drain.write": drain_a_node,
    "drain.trim": drain_a_node,
    "drain.retire": drain_a_node,
    "rebalance_all.locate": add_a_node,
    "rebalance_all.count": add_a_node,
    "rebalance_all.write": add_a_node,
    "rebalance_all.trim": add_a_node,
}
OPERATIONS = tuple(dict.fromkeys(phase.partition(".")[0] for phase in PHASES))


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, make_installation: Callable[..., Installation]
) -> Iterator[dict[str, Future[None]]]:
    """Start the kills of all operations that the selected tests need. Map each operation to the future of its kills."""
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    wanted = dict.fromkeys(call.params["operation"] for call in calls if "operation" in call.params)
    made = {name: make_installation(CHUNK_SIZE=str(CHUNK_SIZE), **ENVIRONMENT.get(name, {})) for name in wanted}
    with ThreadPoolExecutor(max(1, len(made))) as threads:
        yield {name: threads.submit(kill_in_all_phases, made[name], name) for name in made}


def kill_in_all_phases(installation: Installation, operation: str) -> None:
    for phase, begin in PHASES.items():
        if phase.startswith(f"{operation}."):
            for victim in VICTIMS:
                kill_in(installation, phase, begin, victim)


def kill_in(installation: Installation, phase: str, begin: Begin, victim: str) -> None:
    """Hold a process of the maintenance worker in the phase.

    Kill this process, or all processes of the worker, and check that the system recovers.
    """
    system, gates = installation.system, installation.gates
    gates.close(phase)
    begin(installation, f"{victim} killed in {phase}")
    pid = gates.await_arrival(phase)
    processes = system.children("maintenance")
    assert pid in processes, f"{phase} is entered by {pid}"
    if victim == "process":
        kill_all([pid])
    else:
        system.kill("maintenance")
        wait_until(lambda: not alive(processes), ARRIVAL_LIMIT, lambda: f"{alive(processes)} still run")
    killed_at = time.monotonic()
    gates.open(phase)
    installation.settle(f"{victim} killed in {phase.partition('.')[0]}", since=killed_at)


@pytest.mark.faults
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_a_dead_process_was_doing_is_done_by_another(runs: dict[str, Future[None]], operation: str) -> None:
    runs[operation].result()


def test_an_upload_survives_a_kill_in_the_middle_of_its_ingest(make_installation: Callable[..., Installation]) -> None:
    installation = make_installation(INGEST_WORKERS="2")
    installation.gates.close("ingest.write")
    wreck = Wreck(accept_batch(installation, "killed"))
    kill_all([installation.gates.await_arrival("ingest.write")])
    wreck.strike()
    installation.gates.open("ingest.write")
    wreck.await_recovery(installation)
    installation.settle("process killed in the middle of ingest", since=wreck.killed_at)
