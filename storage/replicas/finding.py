"""Which nodes hold which chunks, asked of the volumes: exact, unlike ``routing``."""

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
    """What the volumes said.

    Attributes:
        holders: chunk hash → the nodes that have a copy of the right size.
        silent: nodes that did not answer; what they hold is not known.
    """

    holders: dict[str, list[Member]]
    silent: list[Member]


def ask(topology: Topology, sizes: Mapping[str, int]) -> Answers:
    """Ask every node for every chunk, all nodes side by side.

    Args:
        topology: the nodes.
        sizes: chunk hash → size in bytes; a copy of another size is none.
    """
    hashes = list(sizes)
    holders: dict[str, list[Member]] = {chunk_hash: [] for chunk_hash in hashes}
    silent = []
    asked = []
    for member in topology.members:
        try:
            asked.append((member, member.lane.submit(member.lane.volume.sizes, hashes)))
        except VolumeError:
            silent.append(member)
    for member, future in asked:
        try:
            found = member.lane.result(future)
        except VolumeError:
            silent.append(member)
            continue
        for chunk_hash, size in zip(hashes, found, strict=True):
            if size == sizes[chunk_hash]:
                holders[chunk_hash].append(member)
    return Answers(holders, silent)


def holders_of(topology: Topology, manifest: Sequence[tuple[str, int]]) -> dict[str, list[Member]]:
    """The nodes that hold each chunk of a manifest, of any length, each chunk once."""
    sizes = dict(manifest)
    hashes = list(sizes)
    holders: dict[str, list[Member]] = {}
    for start in range(0, len(hashes), ASKED_CHUNKS):
        holders.update(ask(topology, {h: sizes[h] for h in hashes[start : start + ASKED_CHUNKS]}).holders)
    return holders


def health_of(
    topology: Topology, manifest: Sequence[tuple[str, int]], holders: Mapping[str, Sequence[Member]], target: int
) -> Health:
    """Summarise what the volumes said about a manifest."""
    counts = [len(holders[chunk_hash]) for chunk_hash, _ in manifest]
    return Health.of(counts, target=target, epoch=topology.cluster.topology_epoch)


def verified(holders: Mapping[str, Sequence[Member]]) -> tuple[dict[str, list[Member]], set[str]]:
    """Read copies back and keep those whose bytes have the right hash; they are durable when this returns (RACES 3).

    Args:
        holders: chunk hash → nodes that say they have a copy.

    Returns:
        The good copies by chunk, and the chunks of which a bad copy was met.
    """
    asked = []
    for chunk_hash, members in holders.items():
        for member in members:
            try:
                asked.append((chunk_hash, member, member.lane.submit(check, member.lane.volume, chunk_hash)))
            except VolumeError:
                continue
    good: dict[str, list[Member]] = {chunk_hash: [] for chunk_hash in holders}
    bad = set()
    for chunk_hash, member, future in asked:
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
    """Make sure that a volume has a good and durable copy.

    Raises:
        ReplicaCorrupt: the bytes are others.
        VolumeError: there is no copy, or it cannot be read.
    """
    read_verified(volume, chunk_hash)
    volume.settle(chunk_hash)


def read_verified(volume: Volume, chunk_hash: str) -> bytes:
    """Read a copy and hash it; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes are others.
        VolumeError: there is no copy, or it cannot be read.
    """
    return require_hash(volume.read(chunk_hash), chunk_hash)


def examine(volume: Volume, chunk_hash: str) -> None:
    """Read a copy from its medium, not from a cache, and hash it; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes are others.
        VolumeError: there is no copy, or it cannot be read.
    """
    require_hash(volume.read(chunk_hash, uncached=True), chunk_hash)


def rescue_verified(volume: Volume, chunk_hash: str) -> bytes:
    """Read a copy that lies in the trash and hash it; runs in the volume's lane.

    Raises:
        ReplicaCorrupt: the bytes are others.
        VolumeError: there is no copy, or it cannot be read.
    """
    return require_hash(volume.rescue(chunk_hash), chunk_hash)


def require_hash(data: bytes, chunk_hash: str) -> bytes:
    """The data, if it has the hash that it is named by.

    Raises:
        ReplicaCorrupt: it has not.
    """
    if not has_hash(data, chunk_hash):
        raise ReplicaCorrupt(chunk_hash)
    return data


def has_hash(data: bytes, chunk_hash: str) -> bool:
    """Whether bytes are those that are named so."""
    return hashlib.sha256(data).hexdigest() == chunk_hash
