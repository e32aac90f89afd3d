"""Where new replicas go: weighted rendezvous hashing. Pure.

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
        node_id: its id.
        weight: its share of new replicas, relative to the others'; 0 takes none.
        zone: replicas go to distinct zones first; an empty zone is the node's own.
    """

    node_id: str
    weight: float = 1.0
    zone: str = ""


def rank(chunk_hashes: Sequence[str], candidates: Sequence[Candidate]) -> NDArray[np.intp]:
    """For each chunk, the candidates in order of preference.

    The best node of every zone comes first, by score, then the second best of every zone, and so on. A candidate
    added or removed moves no other pair of candidates in a chunk's order.

    Args:
        chunk_hashes: n SHA-256 in hex.
        candidates: m nodes.

    Returns:
        (n, m) indices into ``candidates``.
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
    """What there is to know of candidates whatever the chunk.

    Attributes:
        hashes: of their ids, uint64 ``[m]``.
        weights: float64 ``[m]``.
        neighbours: the columns of each zone that has several of them.
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
    """The durable replicas of each chunk without which an upload is not acknowledged: ``min(RF, RF // 2 + 1)``."""
    return min(replication_factor, replication_factor // 2 + 1)


def spread(order: Sequence[Candidate], held: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose where to add replicas to those already held: zones without one first, then the given order.

    Args:
        order: candidates in order of preference, none of them in ``held``.
        held: nodes that have a replica.
        count: how many to choose at most.
    """
    covered = {candidate.zone for candidate in held if candidate.zone}
    chosen: list[Candidate] = []
    rest: list[Candidate] = []
    for candidate in order:
        if candidate.zone and candidate.zone in covered:
            rest.append(candidate)
        else:
            chosen.append(candidate)
            covered.add(candidate.zone)
    return (chosen + rest)[:count]
