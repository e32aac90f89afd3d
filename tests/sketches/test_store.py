"""The store's commands one by one, against a real server."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sketches.exceptions import StoreUnavailable
from sketches.hashing import hash_chunks
from sketches.lcrs import LCRS, level_counts
from sketches.store import BYTES_PER_LOOK, SketchStore, trusted

Names = Callable[..., list[str]]
Build = Callable[..., None]


def registers(store: SketchStore, node_id: str = "a") -> list[int]:
    values: list[int] = store.snapshot([node_id]).sketches[node_id].registers.tolist()
    return values


def hashes(chunks: list[str]) -> list[int]:
    values: list[int] = hash_chunks(chunks, 11).tolist()
    return values


def lcrs(chunks: list[str], n_prime: int = 16, tau: int = 5) -> LCRS:
    sketch = LCRS(n_prime, tau, 11)
    sketch.add(chunks)
    return sketch


def instrumented(client: redis.Redis, *, lose_answers: bool = False) -> tuple[redis.Redis, list[bool]]:
    """Return a client of the same server that retries, and a list. The list gets True for each script that the client
    sends, and False for any other command.

    If ``lose_answers`` is True, the client loses the answers to its scripts.
    """
    sent: list[bool] = []

    class Connection(client.connection_pool.connection_class):  # type: ignore[misc,name-defined]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            self.is_script = any(b"EVAL" in bytes(part) for part in command)
            sent.append(self.is_script)
            super().send_packed_command(command, check_health)

        def read_response(self, *args: Any, **options: Any) -> Any:
            answer = super().read_response(*args, **options)
            if lose_answers and self.is_script:
                self.disconnect()
                raise redis.TimeoutError("the answer got lost")
            return answer

    options = {
        key: client.connection_pool.connection_kwargs.get(key)
        for key in ("path", "host", "port", "db", "username", "password")
    }
    given = {key: value for key, value in options.items() if value is not None}
    pool = redis.ConnectionPool(connection_class=Connection, retry=Retry(NoBackoff(), 3), **given)
    return redis.Redis(connection_pool=pool), sent


def test_a_script_never_creates_a_sketch(store: SketchStore, chunk_names: Names, redis_client: redis.Redis) -> None:
    chunks = {"a": chunk_names(3), "b": chunk_names(3)}
    assert store.update(chunks, remove=chunks, ensure=chunks) == {"a", "b"}
    assert redis_client.keys("occ:s*") == []


def test_what_is_missing_is_told_and_the_rest_counts(
    store: SketchStore, chunk_names: Names, build_sketch: Build
) -> None:
    build_sketch(store, "b")
    assert store.update({"a": chunk_names(3), "b": chunk_names(3)}, ensure={"c": chunk_names(1)}) == {"a", "c"}
    assert registers(store, "b") == lcrs(chunk_names(3)).registers.tolist()


@pytest.mark.parametrize("damage", [slice(0, 71), slice(0, -1), slice(1, None)])
def test_a_cut_sketch_does_not_count(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis, damage: slice
) -> None:
    build_sketch(store, "a")
    value = redis_client.get("occ:sketch:a")
    assert isinstance(value, bytes)
    redis_client.set("occ:sketch:a", value[damage])
    assert store.update({"a": chunk_names(3)}) == {"a"}
    assert store.lookup(["a"], chunk_names(3)).headers == {"a": None}
    assert store.snapshot(["a"]).headers == {"a": None}
    assert redis_client.get("occ:sketch:a") == value[damage]


@pytest.mark.parametrize(("seed", "base"), [(12, 16), (11, 8)])
def test_a_foreign_sketch_does_not_count(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis, seed: int, base: int
) -> None:
    build_sketch(SketchStore(redis_client, "occ", seed=seed, base_n_prime=base, tau=5), "a")
    assert store.update({"a": chunk_names(3)}) == {"a"}
    assert store.lookup(["a"], chunk_names(3)).headers == {"a": None}
    assert store.snapshot(["a"]).headers == {"a": None}


def test_counting_saturates_and_sticks(store: SketchStore, chunk_names: Names, build_sketch: Build) -> None:
    build_sketch(store, "a")
    one, other = chunk_names(1), chunk_names(1, 2)
    store.update({"a": one * 4})
    assert max(registers(store)) == 4
    store.update({}, remove={"a": one * 3})
    assert max(registers(store)) == 1
    store.update({"a": one * 300}, remove={"a": other})
    assert max(registers(store)) == 5
    store.update({}, remove={"a": one * 300})
    assert registers(store) == lcrs(one * 300).registers.tolist()


def test_ensure_occupies_only_what_is_empty(store: SketchStore, chunk_names: Names, build_sketch: Build) -> None:
    build_sketch(store, "a", chunks=chunk_names(1) * 3)
    store.update({}, ensure={"a": chunk_names(2) * 4})
    assert registers(store) == lcrs(chunk_names(1) * 3 + chunk_names(1, 2)).registers.tolist()


def test_what_a_batch_adds_is_there_whatever_it_removes(
    store: SketchStore, chunk_names: Names, build_sketch: Build
) -> None:
    build_sketch(store, "a")
    chunks = chunk_names(3)
    store.update({"a": chunks[:1]}, remove={"a": chunks * 2}, ensure={"a": chunks[1:]})
    assert store.lookup(["a"], chunks).counts.all()


def test_removals_are_for_the_build_they_name(store: SketchStore, chunk_names: Names, build_sketch: Build) -> None:
    chunks = {"a": chunk_names(1)}
    build_sketch(store, "a", chunks=chunks["a"] * 3)
    header = store.lookup(["a"], []).headers["a"]
    assert header is not None
    store.update({}, remove=chunks, builds={"a": header.build})
    assert max(registers(store)) == 2
    build_sketch(store, "a", chunks=chunks["a"])
    store.update({}, remove=chunks, builds={"a": header.build})
    assert max(registers(store)) == 1


@pytest.mark.parametrize("size", [16, 64, 16 << 12])
def test_a_lookup_is_the_model(store: SketchStore, chunk_names: Names, build_sketch: Build, size: int) -> None:
    """Of 65536 registers, a few are read one by one; if many are wanted, the whole sketch is read.

    A sketch of 16 registers is always read whole.
    """
    few, many = size // BYTES_PER_LOOK or 1, size // BYTES_PER_LOOK + 1
    held = {"a": chunk_names(0, 900, 3), "b": chunk_names(0, 900, 2), "d": []}
    for node_id, chunks in held.items():
        build_sketch(store, node_id, size if node_id != "d" else 16, chunks)
    for asked in (chunk_names(1, few), chunk_names(many), chunk_names(many)[::-1] * 2, []):
        found = store.lookup(["b", "c", "a", "d"], asked)
        assert found.counts.dtype == np.uint8
        assert [header and header.n_prime for header in found.headers.values()] == [size, None, size, 16]
        for row, node_id in zip(found.counts, ["b", "c", "a", "d"], strict=True):
            model = lcrs(held.get(node_id, []), size)
            assert row.tolist() == [int(model.registers[int(h) % size]) for h in hashes(asked)]


def test_lookup_of_more_registers_than_one_command_looks_at(
    store: SketchStore, chunk_names: Names, build_sketch: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketches.store.BYTES_PER_LOOK", 1)
    asked = chunk_names(4001)
    for node_id, size in (("a", 16 << 10), ("b", 16 << 11)):
        build_sketch(store, node_id, size, asked[::3])
    counts = store.lookup(["a", "b"], asked).counts
    for row, size in zip(counts, (16 << 10, 16 << 11), strict=True):
        registers = lcrs(asked[::3], size).registers
        assert row.tolist() == [int(registers[int(h) % size]) for h in hashes(asked)]


def test_lookup_without_nodes(store: SketchStore, chunk_names: Names) -> None:
    found = store.lookup([], chunk_names(2))
    assert (found.counts.shape, found.headers, len(found.run_id)) == ((0, 2), {}, 40)


@pytest.mark.parametrize("chunks", [1, 200])
def test_registers_above_tau_are_damage(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis, chunks: int
) -> None:
    build_sketch(store, "a", 16 << 6)
    redis_client.setrange("occ:sketch:a", 72, b"\x06" * (16 << 6))
    found = store.lookup(["a"], chunk_names(chunks))
    assert found.headers == {"a": None}
    assert not found.counts.any()


def test_trust_needs_a_header_the_epoch_and_the_run_id(
    store: SketchStore, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build_sketch(store, "a", epoch=4)
    found, snapshot = store.lookup(["a"], []), store.snapshot(["a"])
    header = found.headers["a"]
    assert found.run_id == snapshot.run_id == redis_client.info("server")["run_id"]
    assert trusted(header, 4, found.run_id)
    assert not trusted(header, 5, found.run_id)
    assert not trusted(header, 4, "0" * 40)
    assert not trusted(None, 4, found.run_id)


def test_a_snapshot_feeds_level_counts(store: SketchStore, chunk_names: Names, build_sketch: Build) -> None:
    build_sketch(store, "a", 16, chunk_names(2))
    build_sketch(store, "b", 32, chunk_names(2))
    snapshot = store.snapshot(["a", "b", "c"])
    assert (list(snapshot.sketches), snapshot.headers["c"]) == (["a", "b"], None)
    assert level_counts(list(snapshot.sketches.values()), 5).tolist() == [14, 0, 2]


def test_a_snapshot_has_the_registers_that_a_lookup_has(
    store: SketchStore, chunk_names: Names, build_sketch: Build
) -> None:
    chunks, asked = chunk_names(20), ["b", "missing", "a"]
    build_sketch(store, "a", 16, chunks[:6])
    build_sketch(store, "b", 32, chunks[3:])
    found = store.snapshot(["a", "b", "missing"]).registers(asked, chunks)
    assert found == store.lookup(asked, chunks).counts.T.tolist()
    assert store.snapshot(["missing"]).registers(["missing"], chunks[:2]) == [[0], [0]]


def test_each_call_is_one_round_trip(redis_client: redis.Redis, chunk_names: Names, build_sketch: Build) -> None:
    client, sent = instrumented(redis_client)
    store = SketchStore(client, "occ", seed=11, base_n_prime=16, tau=5)
    nodes, chunks = ["a", "b", "c"], chunk_names(20)
    for node_id in nodes:
        build_sketch(store, node_id)
    part = dict.fromkeys(nodes, chunks)
    store.update(part, part, part)
    store.lookup(nodes, chunks)
    calls: list[Callable[[], object]] = [
        lambda: store.update(part, part, part),
        lambda: store.lookup(nodes, chunks),
        lambda: store.snapshot(nodes),
    ]
    for call in calls:
        sent.clear()
        call()
        assert len(sent) == 1
    sent.clear()
    assert store.update({}) == set()
    assert not sent


def test_scripts_the_server_forgot_are_sent_again(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build_sketch(store, "a")
    redis_client.script_flush()
    store.update({"a": chunk_names(1)})
    redis_client.script_flush()
    assert store.lookup(["a"], chunk_names(1)).counts.tolist() == [[1]]


def test_an_update_whose_answer_got_lost_is_not_sent_twice(
    store: SketchStore, chunk_names: Names, build_sketch: Build, redis_client: redis.Redis
) -> None:
    build_sketch(store, "a", chunks=chunk_names(1) * 3)
    client, _ = instrumented(redis_client, lose_answers=True)
    lossy = SketchStore(client, "occ", seed=11, base_n_prime=16, tau=5)
    with pytest.raises(StoreUnavailable, match="lost"):
        lossy.update({}, remove={"a": chunk_names(1)})
    assert max(registers(store)) == 2


def test_no_server_is_unavailable(chunk_names: Names) -> None:
    client = redis.Redis(unix_socket_path="/nowhere/s", retry=Retry(NoBackoff(), 0))
    store = SketchStore(client, "occ", seed=1, base_n_prime=16, tau=5)
    calls: list[Callable[[], object]] = [
        lambda: store.update({"a": chunk_names(1)}),
        lambda: store.lookup(["a"], chunk_names(1)),
        lambda: store.snapshot(["a"]),
        lambda: store.open_shadow("a", 1, 16),
        lambda: store.fill_shadow("a", b"b" * 16, chunk_names(1)),
        lambda: store.swap_shadow("a", b"b" * 16),
        lambda: store.discard_shadow("a", b"b" * 16),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()


def test_threads_lose_no_count(redis_client: redis.Redis, chunk_names: Names, build_sketch: Build) -> None:
    store = SketchStore(redis_client, "occ", seed=11, base_n_prime=16, tau=255)
    build_sketch(store, "a")
    build_sketch(store, "b")
    chunks = chunk_names(8)

    def count() -> None:
        for _ in range(25):
            store.update({"a": chunks, "b": chunks[:4]}, remove={"b": chunks[:2]})

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registers(store, "a") == lcrs(chunks * 200, tau=255).registers.tolist()
    assert sum(registers(store, "b")) >= 400


@pytest.mark.parametrize("base", [1, 3, 16, 10_000, 65_536, 2**31 + 1])
def test_every_size_finds_its_register(redis_client: redis.Redis, chunk_names: Names, base: int) -> None:
    """The server finds the register of a hash exactly for a sketch of any size, even of the largest size that the
    format can hold.
    """
    store = SketchStore(redis_client, "occ", seed=11, base_n_prime=base, tau=5)
    packed = np.frombuffer(store._pack(chunk_names(50)), "<u4").astype(np.uint64)
    size = base
    while size < 2**32:
        assert [int(value) % size for value in packed] == [value % size for value in hashes(chunk_names(50))]
        size *= 2
