"""Random sequences of commands: sketches and shadows in the store stay equal to sketches in memory."""

from collections.abc import Mapping

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sketches.exceptions import ShadowLost
from sketches.lcrs import LCRS
from sketches.store import SketchStore
from sketches.wire import decode

SEED, TAU = 5, 3
NODES = ["a", "b"]
nodes = st.sampled_from(NODES)
sizes = st.sampled_from([8, 16, 32])
chunk_lists = st.lists(st.integers(0, 8).map(lambda number: f"{number:064x}"), max_size=12)
parts = st.dictionaries(nodes, chunk_lists)


class StoreMachine(RuleBasedStateMachine):
    """The store, compared with a model: one LCRS in memory for each sketch and for each shadow."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.store = SketchStore(self.client, "occ", seed=SEED, base_n_prime=8, tau=TAU)
        self.sketches: dict[str, LCRS] = {}
        self.shadows: dict[str, tuple[bytes, LCRS]] = {}

    @initialize(node=nodes)
    def have_a_sketch(self, node: str) -> None:
        self.open(node, 8, 1)
        self.swap(node)

    @rule(add=parts, remove=parts, ensure=parts)
    def update(
        self, add: Mapping[str, list[str]], remove: Mapping[str, list[str]], ensure: Mapping[str, list[str]]
    ) -> None:
        missing = self.store.update(add, remove, ensure)
        assert missing == {*add, *remove, *ensure} - set(self.sketches) - set(self.shadows)
        for node, sketch in self.sketches.items():
            sketch.remove(remove.get(node, []))
        shadows = {node: shadow for node, (_, shadow) in self.shadows.items()}
        for node, sketch in [*self.sketches.items(), *shadows.items()]:
            sketch.add(add.get(node, []))
            for chunk in ensure.get(node, []):
                if not sketch.contains([chunk])[0]:
                    sketch.add([chunk])

    @rule(node=nodes, n_prime=sizes, epoch=st.integers(0, 2**64 - 1))
    def open(self, node: str, n_prime: int, epoch: int) -> None:
        self.shadows[node] = self.store.open_shadow(node, epoch, n_prime), LCRS(n_prime, TAU, SEED)

    @rule(node=nodes, chunks=chunk_lists)
    def fill(self, node: str, chunks: list[str]) -> None:
        if node in self.shadows:
            build, shadow = self.shadows[node]
            self.store.fill_shadow(node, build, chunks)
            shadow.add(chunks)
        else:
            with pytest.raises(ShadowLost):
                self.store.fill_shadow(node, b"0" * 16, chunks)

    @rule(node=nodes)
    def swap(self, node: str) -> None:
        if node in self.shadows:
            build, self.sketches[node] = self.shadows.pop(node)
            self.store.swap_shadow(node, build)
        else:
            with pytest.raises(ShadowLost):
                self.store.swap_shadow(node, b"0" * 16)

    @rule(node=nodes)
    def discard(self, node: str) -> None:
        self.store.discard_shadow(node, self.shadows.pop(node, (b"0" * 16,))[0])

    @rule()
    def lose_everything(self) -> None:
        self.client.flushall()
        self.sketches, self.shadows = {}, {}

    @rule(chunks=chunk_lists)
    def lookup(self, chunks: list[str]) -> None:
        found = self.store.lookup(NODES, chunks)
        for row, node in zip(found.counts, NODES, strict=True):
            known = (self.sketches[node].contains(chunks)).tolist() if node in self.sketches else [False] * len(chunks)
            assert (row != 0).tolist() == known

    @invariant()
    def same_registers(self) -> None:
        stored = {key: registers.registers.tolist() for key, registers in self.store.snapshot(NODES).sketches.items()}
        assert stored == {node: sketch.registers.tolist() for node, sketch in self.sketches.items()}
        for node in NODES:
            value = self.client.get(f"occ:shadow:{node}")
            shadow = decode(value, seed=SEED)[1].tolist() if isinstance(value, bytes) else None
            assert shadow == (self.shadows[node][1].registers.tolist() if node in self.shadows else None)


def test_the_store_does_what_sketches_in_memory_do(redis_client: redis.Redis) -> None:
    StoreMachine.client = redis_client
    suppress = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=suppress),
    )
