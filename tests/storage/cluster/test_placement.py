from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storage.cluster.placement import Candidate, acknowledgeable, rank, spread


def hashes(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{i}".encode()).hexdigest() for i in range(count)]


def nodes(count: int, zone: str = "") -> list[Candidate]:
    return [Candidate(f"node_{i:03d}", zone=zone) for i in range(count)]


def test_every_order_is_a_permutation() -> None:
    order = rank(hashes(100), nodes(7))
    assert (np.sort(order, axis=1) == np.arange(7)).all()


def test_the_order_does_not_depend_on_how_the_nodes_are_listed() -> None:
    chunk_hashes, candidates = hashes(50), nodes(6)
    forwards = [[candidates[i].node_id for i in row] for row in rank(chunk_hashes, candidates)]
    backwards = candidates[::-1]
    assert forwards == [[backwards[i].node_id for i in row] for row in rank(chunk_hashes, backwards)]


@given(st.integers(2, 12))
def test_removing_a_node_moves_only_what_it_held(count: int) -> None:
    chunk_hashes, candidates = hashes(40, str(count)), nodes(count)
    before = [[candidates[i].node_id for i in row] for row in rank(chunk_hashes, candidates)]
    fewer = candidates[:-1]
    after = [[fewer[i].node_id for i in row] for row in rank(chunk_hashes, fewer)]
    gone = candidates[-1].node_id
    assert after == [[node_id for node_id in row if node_id != gone] for row in before]


def test_replicas_are_spread_evenly_over_equal_nodes() -> None:
    counts = Counter(int(i) for row in rank(hashes(20_000), nodes(5)) for i in row[:3])
    expected = 20_000 * 3 / 5
    assert all(abs(count - expected) < 5 * (expected * 0.4) ** 0.5 for count in counts.values())


def test_first_choices_follow_the_weights() -> None:
    candidates = [Candidate("a", 1.0), Candidate("b", 2.0), Candidate("c", 1.0)]
    counts = Counter(candidates[row[0]].node_id for row in rank(hashes(20_000), candidates))
    assert abs(counts["b"] / 20_000 - 0.5) < 0.02
    assert abs(counts["a"] / 20_000 - 0.25) < 0.02


def test_distinct_zones_come_first() -> None:
    candidates = [Candidate(f"n{i}", zone=f"z{i % 3}") for i in range(9)]
    for row in rank(hashes(200), candidates):
        assert len({candidates[i].zone for i in row[:3]}) == 3


def test_an_addition_goes_to_a_zone_that_has_no_copy() -> None:
    held = [Candidate("a", zone="x")]
    order = [Candidate("b", zone="x"), Candidate("c", zone="y"), Candidate("d", zone="y")]
    assert [c.node_id for c in spread(order, held, 2)] == ["c", "b"]


def test_what_an_acknowledgement_needs() -> None:
    assert [acknowledgeable(factor) for factor in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
