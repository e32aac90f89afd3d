"""Measures finding three chunks that lost a copy, among all chunks: from the sketches, and by listing every node.

Most chunks on record have no bytes. The volumes of this process claim to hold these chunks: each of them seems to lie
on three nodes, which the first digits of its hash determine. Like any volume, these volumes look at the disk first. The
sketches in Redis are made to agree with these claims. The three chunks that lose a copy really exist, so the trace can
also repair them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.growth.installation import Failure
from sketches.hashing import DIGEST_SIZE, hash_digests, registers_of
from sketches.wire import HEADER_SIZE
from storage.cluster import topology
from storage.cluster.topology import Topology, identity_of
from storage.conf import configuration
from storage.models import Chunk, Cluster, Job, Node
from storage.redis_connection import connect
from storage.services import trace
from storage.services.survey import GROWTH_LOAD
from storage.tracking import proof
from storage.tracking.store import store_of
from storage.volumes import Identity, Volume
from storage.volumes.filesystem import FilesystemVolume

QUEUE = "growth"  # No worker serves this queue.
LOST = 3  # The number of chunks that lose a copy.
IDS = 1 << 20
LISTED = 200_000  # The number of files in the directory tree whose listing is timed.
NODES = 5
CHUNK_SIZE = 262144  # The chunks on record have this size.
HOLDERS = list(combinations(range(NODES), 3))


@dataclass(frozen=True)
class Traced:
    """The results of the measurement.

    Attributes:
        chunks: number of chunks on record.
        n_prime: registers of each sketch.
        proof: seconds to read the registers once and see that copies are missing.
        naming: seconds until the hashes of all three chunks were known.
        trace: seconds until the three chunks were also repaired, and the registers were read again.
        stream: seconds to read and hash all chunks on record once, which a trace also does.
        asked: number of chunks that the nodes were asked for.
        named: True if exactly the chunks that had lost a copy were found and repaired.
        listing: seconds to list a million names of a directory tree.
    """

    chunks: int
    n_prime: int
    proof: float
    naming: float
    trace: float
    stream: float
    asked: int
    named: bool
    listing: float

    def __str__(self) -> str:
        copies = 3 * self.chunks
        full = copies / 1_000_000 * self.listing
        outcome = "found and mended" if self.named else "NOT FOUND"
        return (
            f"{LOST} chunks that lost a copy among {self.chunks:,}, in sketches of {self.n_prime:,} registers: to look "
            f"at the registers takes {self.proof:.1f} s, which is done twice, to read and hash all chunks "
            f"{self.stream:.1f} s; after {self.naming:.1f} s the chunks are named, after {self.trace:.1f} s they are "
            f"{outcome}, and nodes were asked for {self.asked} chunks. A million names of a directory tree, "
            f"measured on {LISTED:,}, are listed in {self.listing:.1f} s: {copies:,} copies would take {full:.0f} s, "
            "one node after the other.\n"
        )


@contextmanager
def untraced() -> Iterator[None]:
    """Keep the workers from tracing losses, because most chunks on record are on no volume.

    The survey queues no trace while a job that repairs the whole cluster is open.
    """
    Job.objects.create(kind=Job.Kind.REPAIR_ALL, queue=QUEUE, subject=QUEUE)
    try:
        yield
    finally:
        Job.objects.filter(queue=QUEUE).delete()


def measure(hashes: Sequence[str]) -> Traced:
    """Remove one copy of each of three uploaded chunks, make sketches that count all other copies, and trace.

    Args:
        hashes: hashes of uploaded files of one chunk each.
    """
    nodes = list(Node.objects.order_by("node_id"))
    real = b"".join(_real(node) for node in nodes).hex()
    there = {real[at : at + 2 * DIGEST_SIZE] for at in range(0, len(real), 2 * DIGEST_SIZE)}

    def opened(url: str, expected: Identity | None = None, **_: object) -> Volume:
        assert expected is not None
        return SaidToHold(url, expected, nodes, there)

    topology.open_volume = opened  # type: ignore[attr-defined]  # The module topology opens volumes by this name.
    topology._lanes.clear()
    topology.forget()
    losing = hashes[:LOST]
    for chunk_hash in losing:
        next(path for node in nodes if (path := _path(node, chunk_hash)).exists()).unlink()
    n_prime = _make_sketches(nodes)
    chunks = Chunk.objects.count()
    begun = time.perf_counter()
    evidence = proof.find(Topology.load())
    looked = time.perf_counter() - begun
    if evidence is None or len(evidence.low) == 0:
        raise Failure("the sketches prove nothing")
    begun = time.perf_counter()
    _stream()
    streamed = time.perf_counter() - begun
    Job.objects.create(kind=Job.Kind.TRACE, queue=QUEUE, subject="cluster")
    (job,) = [job for job in Job.objects.claim(QUEUE, most=9, most_bytes=0) if job.kind == Job.Kind.TRACE]
    job.begin_turn()
    named_at: list[float] = []
    mend = trace._mend

    def named_now(*arguments: Any) -> None:
        named_at.append(time.perf_counter())
        mend(*arguments)

    begun = time.perf_counter()
    with patch.object(trace, "_mend", named_now):  # A trace calls this function as soon as it has named chunks.
        result = trace.trace(job)
    traced = time.perf_counter() - begun
    naming = max(named_at, default=begun) - begun
    whole = all(sum(_path(node, chunk_hash).exists() for node in nodes) == 3 for chunk_hash in losing)
    named = whole and (result["short"], result["added"]) == (LOST, LOST)
    return Traced(chunks, n_prime, looked, naming, traced, streamed, result["asked"], named, _listing())


class SaidToHold(FilesystemVolume):
    """A node's volume that claims its share of the chunks without bytes, in addition to the replicas that exist."""

    def __init__(self, url: str, identity: Identity, nodes: Sequence[Node], there: set[str]) -> None:
        super().__init__(Path(url.removeprefix("file://")), identity)
        place = [node.node_id for node in nodes].index(identity.node_id)
        self._said = [place in holders for holders in HOLDERS]
        self._there = there

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        found = super().sizes(chunk_hashes)
        return [size or self._size(chunk_hash) for chunk_hash, size in zip(chunk_hashes, found, strict=True)]

    def _size(self, chunk_hash: str) -> int | None:
        is_said = chunk_hash not in self._there and self._said[int(chunk_hash[:2], 16) % 10]
        return CHUNK_SIZE if is_said else None


def _path(node: Node, chunk_hash: str) -> Path:
    root = Path(topology.absolute_url(node).removeprefix("file://"))
    return root / "chunks" / chunk_hash[:2] / chunk_hash


def _make_sketches(nodes: Sequence[Node]) -> int:
    """Replace the sketches by sketches of the size that the number of chunks needs; return that size."""
    cluster = Cluster.load()
    n_prime, chunks = cluster.base_n_prime, Chunk.objects.count()
    while chunks > GROWTH_LOAD * n_prime:
        n_prime *= 2
    Cluster.grow(n_prime)
    cluster = Cluster.load()
    registers = [np.zeros(n_prime, np.uint16) for _ in nodes]
    real = [_real(node) for node in nodes]
    there = np.unique(np.frombuffer(b"".join(real), f"V{DIGEST_SIZE}"))
    for first in range(0, Chunk.objects.last_id() + 1, IDS):
        digests = np.frombuffer(Chunk.objects.digests(range(first, first + IDS)), f"V{DIGEST_SIZE}")
        digests = digests[~np.isin(digests, there)]
        rule = digests.view(np.uint8).reshape(-1, DIGEST_SIZE)[:, 0] % 10
        places = registers_of(hash_digests(digests.tobytes(), cluster.sketch_seed), n_prime)
        for place, counts in enumerate(registers):
            held = np.array([place in holders for holders in HOLDERS])[rule]
            np.add.at(counts, places[held], 1)
    for node, counts, digests_there in zip(nodes, registers, real, strict=True):
        np.add.at(counts, registers_of(hash_digests(digests_there, cluster.sketch_seed), n_prime), 1)
        _put(cluster, node, np.minimum(counts, cluster.tau).astype(np.uint8))
        Node.objects.filter(pk=node.pk).update(chunks=int(counts.sum()))
    topology.forget()
    return n_prime


def _real(node: Node) -> bytes:
    """Return the SHA-256 digests of the replicas that really exist on a node, one after the other."""
    root = Path(topology.absolute_url(node).removeprefix("file://"))
    return b"".join(bytes.fromhex(path.name) for path in (root / "chunks").glob("*/*") if len(path.name) == 64)


def _put(cluster: Cluster, node: Node, registers: NDArray[np.uint8]) -> None:
    store = store_of(cluster)
    build = store.open_shadow(node.node_id, Node.objects.get(pk=node.pk).sketch_epoch, cluster.n_prime)
    connect().setrange(f"occ:{cluster.uuid}:shadow:{node.node_id}", HEADER_SIZE, registers.tobytes())
    store.swap_shadow(node.node_id, build)


def _stream() -> None:
    """Read and hash every chunk on record, as a trace does."""
    seed = Cluster.load().sketch_seed
    for first in range(0, Chunk.objects.last_id() + 1, trace.IDS):
        hash_digests(Chunk.objects.digests(range(first, first + trace.IDS)), seed)


def _listing() -> float:
    """Return the seconds to list a million names on a volume.

    The time is scaled up from a volume of `LISTED` names, whose directories are in the page cache.
    """
    with tempfile.TemporaryDirectory(dir=configuration().nodes_dir) as folder:
        identity = identity_of(Cluster.load(), Node.objects.all()[0])
        volume = FilesystemVolume(Path(folder) / "listed", identity)
        volume.create(identity)
        for number in range(LISTED):
            name = sha256(str(number).encode()).hexdigest()
            (Path(folder) / "listed" / "chunks" / name[:2] / name).touch()
        begun = time.perf_counter()
        for prefix in range(256):
            list(volume.replicas(f"{prefix:02x}"))
        return (time.perf_counter() - begun) / LISTED * 1_000_000
