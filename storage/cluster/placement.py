"""Where new replicas go: weighted rendezvous hashing. All functions are pure.

Source: D. Thaler and C. V. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
Networking 6(1), 1998; with weights by the logarithmic method: C. Schindelhauer and G. Schomaker, "Weighted distributed
hash tables", SPAA 2005: the score −w / ln(u) of a uniform u wins with probability proportional to w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """A node that replicas may go to.

    Attributes:
        node_id: the id of the node.
        weight: its share of new replicas, relative to the other nodes' weights; a node with weight 0 gets none.
        zone: the name of its zone, as replicas go to distinct zones first. If the name is empty, the node is a zone of
            its own.
    """

    node_id: str
    weight: float = 1.0
    zone: str = ""


def rank(chunk_hashes: Sequence[str], candidates: Sequence[Candidate]) -> NDArray[np.intp]:
    """For each chunk, the candidates in order of preference.

    The best node of every zone comes first, by score, then the second best of every zone, and so on. If a candidate is
    added or removed, the order of the other candidates stays the same, except that nodes of its zone may move.

    Args:
        chunk_hashes: the SHA-256 of n chunks in hex.
        candidates: m nodes.

    Returns:
        Indices into ``candidates``, shape ``[n, m]``.
    """
    field = _field(tuple(candidates))
    scores = _scores(chunk_hashes, field)
    if not field.neighbours:
        return np.argsort(-scores, axis=1, kind="stable")
    place = np.zeros(scores.shape, dtype=np.intp)
    for columns in field.neighbours:
        inside = scores[:, columns]
        place[:, columns] = np.argsort(np.argsort(-inside, axis=1, kind="stable"), axis=1, kind="stable")
    return np.lexsort((-scores, place), axis=1)


@dataclass(frozen=True)
class _Field:
    """Facts about m candidates that are the same for every chunk.

    Attributes:
        hashes: hashes of the node ids, uint64 ``[m]``.
        weights: the weights, float64 ``[m]``.
        neighbours: for each zone with more than one candidate, the indices of its candidates.
    """

    hashes: NDArray[np.uint64]
    weights: NDArray[np.float64]
    neighbours: list[list[int]]


@lru_cache(maxsize=64)
def _field(candidates: tuple[Candidate, ...]) -> _Field:
    digests = [blake2b(candidate.node_id.encode(), digest_size=8).digest() for candidate in candidates]
    hashes = np.array([int.from_bytes(digest, "little") for digest in digests], dtype="u8")
    weights = np.array([candidate.weight for candidate in candidates], dtype=np.float64)
    zones = [candidate.zone for candidate in candidates]
    shared = {zone for zone in zones if zone and zones.count(zone) > 1}
    return _Field(hashes, weights, [[i for i, name in enumerate(zones) if name == zone] for zone in sorted(shared)])


def _scores(chunk_hashes: Sequence[str], field: _Field) -> NDArray[np.float64]:
    chunks = np.frombuffer(bytes.fromhex("".join([chunk_hash[:16] for chunk_hash in chunk_hashes])), dtype="<u8")
    mixed = _splitmix64(chunks[:, None] ^ field.hashes)
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -field.weights / np.log(uniform)


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of Steele, Lea and Flood's SplitMix64 (OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def acknowledgeable(replication_factor: int) -> int:
    """How many durable replicas of each chunk an upload needs to be acknowledged: ``min(RF, RF // 2 + 1)``."""
    return min(replication_factor, replication_factor // 2 + 1)


def spread(order: Sequence[Candidate], holders: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose nodes for further replicas: zones without a replica come first, then the given order decides.

    Args:
        order: candidates in order of preference; no node of ``holders`` is among them.
        holders: nodes that have a replica.
        count: the largest number of nodes to choose.
    """
    covered = {candidate.zone for candidate in holders if candidate.zone}
    chosen: list[Candidate] = []
    rest: list[Candidate] = []
    for candidate in order:
        if candidate.zone and candidate.zone in covered:
            rest.append(candidate)
        else:
            chosen.append(candidate)
            covered.add(candidate.zone)
    return (chosen + rest)[:count]
