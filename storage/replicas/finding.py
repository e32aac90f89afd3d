"""Ask the volumes which nodes hold which chunks. Volumes answer exactly; ``routing`` only estimates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.cluster.topology import Member, Topology
from storage.exceptions import ReplicaCorrupt, VolumeError
from storage.models.content import Health
from storage.volumes import Volume

ASKED_CHUNKS = 2048


@dataclass(frozen=True)
class Answers:
    """The answers of the volumes.

    Attributes:
        holders: chunk hash → the nodes that have a copy of the right size.
        silent: nodes that did not answer, so that it is not known which copies they hold.
    """

    holders: dict[str, list[Member]]
    silent: list[Member]


def ask(topology: Topology, sizes: Mapping[str, int]) -> Answers:
    """Ask every node for every chunk, all nodes in parallel.

    Args:
        topology: the nodes.
        sizes: chunk hash → size in bytes. A copy of another size does not count.
    """
    hashes = list(sizes)
    holders: dict[str, list[Member]] = {chunk_hash: [] for chunk_hash in hashes}
    silent = []
    calls = []
    for member in topology.members:
        try:
            calls.append((member, member.lane.submit(member.lane.volume.sizes, hashes)))
        except VolumeError:
            silent.append(member)
    for member, future in calls:
        try:
            answer = member.lane.result(future)
        except VolumeError:
            silent.append(member)
            continue
        for chunk_hash, size in zip(hashes, answer, strict=True):
            if size == sizes[chunk_hash]:
                holders[chunk_hash].append(member)
    return Answers(holders, silent)


def holders_of(topology: Topology, manifest: Sequence[tuple[str, int]]) -> dict[str, list[Member]]:
    """Ask which nodes hold each chunk of a manifest of any length: chunk hash → nodes."""
    sizes = dict(manifest)
    hashes = list(sizes)
    holders: dict[str, list[Member]] = {}
    for start in range(0, len(hashes), ASKED_CHUNKS):
        holders.update(ask(topology, {h: sizes[h] for h in hashes[start : start + ASKED_CHUNKS]}).holders)
    return holders


def health_of(
    topology: Topology, manifest: Sequence[tuple[str, int]], holders: Mapping[str, Sequence[Member]], target: int
) -> Health:
    """Make a health summary from the answers of the volumes about the chunks of a manifest."""
    counts = [len(holders[chunk_hash]) for chunk_hash, _ in manifest]
    return Health.of(counts, target=target, epoch=topology.cluster.topology_epoch)


def verified(holders: Mapping[str, Sequence[Member]]) -> tuple[dict[str, list[Member]], set[str]]:
    """Read copies back, and make the good copies durable: those whose bytes have the right hash (RACES 3).

    Args:
        holders: chunk hash → nodes that say they have a copy.

    Returns:
        Chunk hash → nodes with a good copy; and the hashes of the chunks that had a bad copy.
    """
    calls = []
    for chunk_hash, members in holders.items():
        for member in members:
            try:
                calls.append((chunk_hash, member, member.lane.submit(check, member.lane.volume, chunk_hash)))
            except VolumeError:
                continue
    good: dict[str, list[Member]] = {chunk_hash: [] for chunk_hash in holders}
    bad = set()
    for chunk_hash, member, future in calls:
        try:
            member.lane.result(future)
        except ReplicaCorrupt:
            bad.add(chunk_hash)
        except VolumeError:
            continue
        else:
            good[chunk_hash].append(member)
    return good, bad


def check(volume: Volume, chunk_hash: str) -> None:
    """Make sure that a volume has a good and durable copy; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes do not have the hash.
        VolumeError: there is no copy, or it cannot be read.
    """
    read_verified(volume, chunk_hash)
    volume.settle(chunk_hash)


def read_verified(volume: Volume, chunk_hash: str) -> bytes:
    """Read a copy and hash it. The caller runs this in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes do not have the hash.
        VolumeError: there is no copy, or it cannot be read.
    """
    return require_hash(volume.read(chunk_hash), chunk_hash)


def examine(volume: Volume, chunk_hash: str) -> None:
    """Read a copy from its medium, not from a cache, and hash it; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes do not have the hash.
        VolumeError: there is no copy, or it cannot be read.
    """
    require_hash(volume.read(chunk_hash, uncached=True), chunk_hash)


def rescue_verified(volume: Volume, chunk_hash: str) -> bytes:
    """Read a copy that lies in the trash and hash it; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes do not have the hash.
        VolumeError: there is no copy, or it cannot be read.
    """
    return require_hash(volume.rescue(chunk_hash), chunk_hash)


def require_hash(data: bytes, chunk_hash: str) -> bytes:
    """Return the data if its SHA-256 is ``chunk_hash``.

    Raises:
        ReplicaCorrupt: the data has another hash.
    """
    if not has_hash(data, chunk_hash):
        raise ReplicaCorrupt(chunk_hash)
    return data


def has_hash(data: bytes, chunk_hash: str) -> bool:
    """True if the SHA-256 of the data is ``chunk_hash``."""
    return hashlib.sha256(data).hexdigest() == chunk_hash
