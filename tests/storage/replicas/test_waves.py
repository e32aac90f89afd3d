from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from storage.models import Job
from storage.replicas.waves import Waves
from tests.support.paper import member

NODES = [member(i) for i in range(6)]
FIRST, SECOND = "aa" * 32, "bb" * 32


@given(
    target=st.integers(1, 6),
    held=st.sets(st.sampled_from(NODES), max_size=6),
    fail=st.sets(st.sampled_from(NODES), max_size=6),
    order=st.permutations(NODES),
)
def test_a_chunk_gets_its_target_wherever_enough_nodes_work(target: int, held: set, fail: set, order: list) -> None:  # type: ignore[type-arg]
    waves = Waves({FIRST: target}, {FIRST: list(held)}, {FIRST: order})
    tried = []
    while wave := waves.next():
        for each in wave[FIRST]:
            tried.append(each)
            waves.failed(each) if each in fail else waves.wrote(each, [FIRST])
    holders = waves.holders[FIRST]
    assert len(tried) == len(set(tried)), "a node is tried once"
    assert not held & set(tried), "a node that has a copy gets no second one"
    assert len(holders) == len(set(holders))
    assert len(holders) == max(len(held), min(target, len(held | (set(NODES) - fail))))
    assert (waves.lack is None) == (len(holders) >= target)


def test_a_node_that_failed_for_one_chunk_is_not_tried_for_another() -> None:
    waves = Waves({FIRST: 1, SECOND: 1}, {FIRST: [], SECOND: []}, {FIRST: NODES[:2], SECOND: NODES[1:3]})
    assert waves.next() == {FIRST: [NODES[0]], SECOND: [NODES[1]]}
    waves.failed(NODES[0])
    waves.failed(NODES[1])
    assert waves.next() == {SECOND: [NODES[2]]}
    assert waves.lack is Job.Lack.NODES


def test_a_lack_of_space_is_named_before_a_lack_of_nodes() -> None:
    waves = Waves({FIRST: 2}, {FIRST: []}, {FIRST: NODES[:2]})
    waves.next()
    waves.failed(NODES[0])
    waves.failed(NODES[1], full=True)
    assert waves.next() == {}
    assert waves.lack is Job.Lack.SPACE


def test_copies_on_nodes_that_do_not_count_are_copied_again() -> None:
    draining = dataclasses.replace(NODES[0], state="draining")
    waves = Waves({FIRST: 1}, {FIRST: [draining]}, {FIRST: NODES[1:]})
    assert waves.next() == {FIRST: [NODES[1]]}
    waves.wrote(NODES[1], [FIRST])
    assert waves.next() == {}
    assert waves.holders == {FIRST: [draining, NODES[1]]}
    assert waves.readers_ask == {}, "a chunk that had a copy before is read from there"


def test_readers_ask_the_first_node_of_a_new_chunk() -> None:
    waves = Waves({FIRST: 3}, {FIRST: []}, {FIRST: NODES})
    waves.next()
    assert waves.readers_ask == {FIRST: NODES[0]}


def test_copies_go_to_distinct_zones_first() -> None:
    nodes = [dataclasses.replace(each, zone="ab"[i % 2]) for i, each in enumerate(NODES)]
    waves = Waves({FIRST: 2}, {FIRST: [nodes[0]]}, {FIRST: nodes[2:]})
    (chosen,) = waves.next()[FIRST]
    assert chosen.zone == "b"
