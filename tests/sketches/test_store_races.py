"""No interleaving of writers, removers, rebuilds and losses makes a trusted sketch lie (seeded random walks)."""

import random
from dataclasses import dataclass

import pytest
import redis

from sketches.exceptions import ShadowLost
from sketches.store import SketchStore, trusted

CHUNKS = [f"{number:064x}" for number in range(6)]
WALKS, STEPS = 25, 60


@dataclass
class Rebuild:
    """A rebuild under way: it lists once the batches that counted before it have ended."""

    build: bytes
    before: set[int]
    to_list: list[str]


class Walk:
    """One node's volume and sketch. Writers count, then write; removers read the build, remove, then un-count."""

    def __init__(self, client: redis.Redis, chance: random.Random) -> None:
        client.flushall()
        self.client, self.chance = client, chance
        self.store = SketchStore(client, "occ", seed=5, base_n_prime=4, tau=20)
        self.volume: set[str] = set()
        self.epoch = 1
        self.batches = 0
        self.writing: dict[int, str] = {}
        self.removed: list[tuple[str, bytes]] = []
        self.rebuild: Rebuild | None = None
        self.checked = 0
        self.store.swap_shadow("a", self.store.open_shadow("a", self.epoch, 4))

    def step(self) -> None:
        weights = {
            self.count: 6, self.write: 14, self.remove: 6, self.uncount: 4, self.ensure: 1,
            self.open: 4, self.list_some: 12, self.swap: 6, self.fail_to_count: 0.2, self.lose: 0.1,
        }  # fmt: skip
        self.chance.choices(list(weights), list(weights.values()))[0]()
        self.check()

    def check(self) -> None:
        held = sorted(self.volume)
        found = self.store.lookup(["a"], held)
        if trusted(found.headers["a"], self.epoch, found.run_id):
            self.checked += len(held)
            assert found.counts.all(), "a false negative"

    def count(self) -> None:
        chunk = self.chance.choice(CHUNKS)
        self.store.update({"a": [chunk]})
        self.begin_write(chunk)

    def fail_to_count(self) -> None:
        self.epoch += 1
        self.begin_write(self.chance.choice(CHUNKS))

    def begin_write(self, chunk: str) -> None:
        self.batches += 1
        self.writing[self.batches] = chunk

    def write(self) -> None:
        if self.writing:
            chunk = self.writing.pop(self.chance.choice(list(self.writing)))
            if self.chance.random() < 0.9:  # else the writer crashed
                self.volume.add(chunk)

    def remove(self) -> None:
        header = self.store.lookup(["a"], []).headers["a"]
        if self.volume:
            chunk = self.chance.choice(sorted(self.volume))
            self.volume.remove(chunk)
            if header is not None:
                self.removed.append((chunk, header.build))

    def uncount(self) -> None:
        if self.removed:
            chunk, build = self.removed.pop(self.chance.randrange(len(self.removed)))
            self.store.update({}, remove={"a": [chunk]}, builds={"a": build})

    def ensure(self) -> None:
        self.store.update({}, ensure={"a": sorted(self.volume)})

    def open(self) -> None:
        if self.rebuild is None or self.chance.random() < 0.1:  # a second rebuild may take over
            build = self.store.open_shadow("a", self.epoch, self.chance.choice([4, 8]))
            self.rebuild = Rebuild(build, set(self.writing), self.chance.sample(CHUNKS, len(CHUNKS)))

    def list_some(self) -> None:
        if self.rebuild and not self.rebuild.before & set(self.writing):
            listed, self.rebuild.to_list = self.rebuild.to_list[:3], self.rebuild.to_list[3:]
            try:
                self.store.fill_shadow("a", self.rebuild.build, [name for name in listed if name in self.volume])
            except ShadowLost:
                self.rebuild = None

    def swap(self) -> None:
        if self.rebuild and not self.rebuild.to_list:
            build, self.rebuild = self.rebuild.build, None
            try:
                self.store.swap_shadow("a", build)
            except ShadowLost:
                return

    def lose(self) -> None:
        self.client.delete(*self.chance.choice([["occ:sketch:a"], ["occ:shadow:a"], ["occ:sketch:a", "occ:shadow:a"]]))


@pytest.mark.parametrize("seed", range(4))
def test_no_interleaving_makes_a_trusted_sketch_lie(redis_client: redis.Redis, seed: int) -> None:
    chance = random.Random(seed)
    checked = 0
    for _ in range(WALKS):
        walk = Walk(redis_client, chance)
        for _ in range(STEPS):
            walk.step()
        checked += walk.checked
    assert checked > WALKS * STEPS / 2, "the walks hardly ever met a trusted sketch with chunks"
