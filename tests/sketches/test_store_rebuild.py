"""Rebuilds of sketches: which rebuilds are exact, and which are refused."""

from collections.abc import Callable

import pytest
import redis

from sketches.exceptions import IncompatibleSketches, ShadowLost, StoreUnavailable
from sketches.lcrs import LCRS
from sketches.store import FILL_BATCH, SketchStore, trusted
from sketches.wire import decode
from tests.sketches.test_store import instrumented
from tests.support.sketches import Server

Names = Callable[..., list[str]]
Build = Callable[..., None]


def stored(client: redis.Redis, kind: str, seed: int = 11) -> list[int] | None:
    value = client.get(f"occ:{kind}:a")
    if not isinstance(value, bytes):
        return None
    registers: list[int] = decode(value, seed=seed)[1].tolist()
    return registers


def model(chunks: list[str], n_prime: int = 16) -> list[int]:
    sketch = LCRS(n_prime, 5, 11)
    sketch.add(chunks)
    registers: list[int] = sketch.registers.tolist()
    return registers


def test_adds_go_to_both_and_removals_to_the_old_one(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build_sketch(store, "a", chunks=chunk_names(2))
    store.open_shadow("a", 1, 32)
    store.update({"a": chunk_names(2, 6)}, ensure={"a": chunk_names(6, 8)})
    store.update({}, remove={"a": chunk_names(2, 4)})
    assert stored(redis_client, "shadow") == model(chunk_names(2, 8), 32)
    assert stored(redis_client, "sketch") != model(chunk_names(8))
    assert sum(stored(redis_client, "sketch") or []) <= 6


def test_a_shadow_counts_even_without_a_sketch(
    store: SketchStore, chunk_names: Names, redis_client: redis.Redis
) -> None:
    build = store.open_shadow("a", 1, 16)
    assert store.update({"a": chunk_names(3)}) == set()
    store.swap_shadow("a", build)
    assert stored(redis_client, "sketch") == model(chunk_names(3))


def test_a_quiet_rebuild_is_exact_and_leaves_no_shadow(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    chunks = chunk_names(2 * FILL_BATCH + 10)
    build_sketch(store, "a", 16 << 10, chunks)
    assert stored(redis_client, "sketch") == model(chunks, 16 << 10)
    assert redis_client.keys("occ:s*") == [b"occ:sketch:a"]


def test_another_build_is_lost(store: SketchStore, chunk_names: Names, redis_client: redis.Redis) -> None:
    first = store.open_shadow("a", 1, 16)
    second = store.open_shadow("a", 1, 16)
    for build in (first, b"\0" * 16):
        with pytest.raises(ShadowLost):
            store.fill_shadow("a", build, chunk_names(1))
        with pytest.raises(ShadowLost):
            store.swap_shadow("a", build)
        store.discard_shadow("a", build)
    assert stored(redis_client, "shadow") == [0] * 16
    store.discard_shadow("a", second)
    assert redis_client.keys("occ:s*") == []


def test_an_empty_listing_of_a_lost_shadow_is_noticed(store: SketchStore) -> None:
    with pytest.raises(ShadowLost):
        store.fill_shadow("a", b"\0" * 16, [])


def test_a_size_that_does_not_fold_is_refused(store: SketchStore, redis_client: redis.Redis) -> None:
    with pytest.raises(IncompatibleSketches):
        store.open_shadow("a", 1, 24)
    assert redis_client.keys("occ:s*") == []


def test_no_swap_after_everything_was_flushed(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build_sketch(store, "a")
    build = store.open_shadow("a", 1, 16)
    redis_client.flushall()
    with pytest.raises(ShadowLost):
        store.fill_shadow("a", build, chunk_names(1))
    with pytest.raises(ShadowLost):
        store.swap_shadow("a", build)
    assert redis_client.keys("occ:s*") == []


def test_no_swap_of_a_cut_shadow(store: SketchStore, build_sketch: Build, redis_client: redis.Redis) -> None:
    build_sketch(store, "a")
    build = store.open_shadow("a", 1, 16)
    before = stored(redis_client, "sketch")
    redis_client.set("occ:shadow:a", redis_client.getrange("occ:shadow:a", 0, -2))
    with pytest.raises(ShadowLost):
        store.swap_shadow("a", build)
    assert stored(redis_client, "sketch") == before


def test_a_swap_whose_answer_got_lost_is_repeated_safely(
    store: SketchStore, chunk_names: Names, redis_client: redis.Redis
) -> None:
    build = store.open_shadow("a", 1, 16)
    store.swap_shadow("a", build)
    store.update({"a": chunk_names(3)})
    store.swap_shadow("a", build)
    assert stored(redis_client, "sketch") == model(chunk_names(3))


def test_an_opening_whose_answer_got_lost_is_not_repeated(store: SketchStore, redis_client: redis.Redis) -> None:
    client, sent = instrumented(redis_client, lose_answers=True)
    lossy = SketchStore(client, "occ", seed=11, base_n_prime=16, tau=5)
    store.open_shadow("a", 1, 16)
    with pytest.raises(StoreUnavailable):
        lossy.open_shadow("a", 1, 16)
    assert sum(sent) == 1


def test_a_restart_ends_trust_and_builds(spare_server: Server, chunk_names: Names, build_sketch: Build) -> None:
    store = SketchStore(spare_server.client, "occ", seed=11, base_n_prime=16, tau=5)
    build_sketch(store, "a", chunks=chunk_names(3))
    build = store.open_shadow("a", 1, 16)
    before = store.lookup(["a"], chunk_names(3))
    assert trusted(before.headers["a"], 1, before.run_id)

    spare_server.stop()
    with pytest.raises(StoreUnavailable):
        store.lookup(["a"], chunk_names(3))
    spare_server.start()

    after = store.lookup(["a"], chunk_names(3))
    assert after.counts.all(), "the append-only file kept the sketch, which still orders reads"
    assert not trusted(after.headers["a"], 1, after.run_id)
    store.fill_shadow("a", build, chunk_names(3))
    with pytest.raises(ShadowLost):
        store.swap_shadow("a", build)
    build_sketch(store, "a", chunks=chunk_names(3))
    again = store.lookup(["a"], [])
    assert trusted(again.headers["a"], 1, again.run_id)


def test_sketch_and_shadow_side_by_side(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build = store.open_shadow("a", 1, 32)
    store.update({"a": chunk_names(3)})
    in_use, shadow = store.side_by_side("a", build)
    assert in_use is None and shadow.registers.tolist() == model(chunk_names(3), 32)
    build_sketch(store, "a", chunks=chunk_names(5))
    build = store.open_shadow("a", 1, 32)
    in_use, shadow = store.side_by_side("a", build)
    assert in_use is not None and in_use.registers.tolist() == model(chunk_names(5))
    assert shadow.registers.tolist() == [0] * 32
    with pytest.raises(ShadowLost):
        store.side_by_side("a", b"\0" * 16)
    redis_client.delete("occ:shadow:a")
    with pytest.raises(ShadowLost):
        store.side_by_side("a", build)


@pytest.mark.parametrize("foreign", ["sketch", "shadow"])
def test_a_count_that_one_of_the_two_misses_is_told(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis, foreign: str
) -> None:
    """A sketch grows from its base size. If the sketch in use, or the shadow, was made for another base size, a chunk
    that is added now cannot be counted in it, and the caller is told so.
    """
    other = SketchStore(redis_client, "occ", seed=11, base_n_prime=12, tau=5)
    if foreign == "sketch":
        build_sketch(other, "a", 12)
        store.open_shadow("a", 1, 16)
    else:
        build_sketch(store, "a")
        other.open_shadow("a", 1, 12)
    assert store.update({"a": chunk_names(1)}) == {"a"}
    assert store.update({"b": chunk_names(1)}) == {"b"}
