"""Measures how long operations on sketches take, against a real Redis or Valkey."""

import os
import secrets
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import redis

from benchmarks.sketches.detection import chunk_names
from occsite.launch import embedded
from occsite.launch.runtime import runtime_dir
from occsite.launch.secret import make_secret
from sketches import occ
from sketches.estimators.membership import candidates
from sketches.lcrs import LCRS, level_counts
from sketches.store import SketchStore

NODES = [f"node_{number:03}" for number in range(5)]
REPLICAS = 3
FILE_CHUNKS = 1000
OTHER_CHUNKS = 20_000
"""The number of other chunks on each node.

This number matters little, because the time of a lookup does not depend on register values.
"""

LIMIT = 30.0  # Seconds that a server may take to start.


@dataclass(frozen=True)
class Took:
    """A measured time or size, and its target, as text."""

    what: str
    median: str
    worst: str
    target: str


@contextmanager
def server() -> Iterator[redis.Redis]:
    """Connect to the server that REDIS_URL names, or to a new server on an empty directory."""
    if url := os.environ.get("REDIS_URL"):
        with redis.Redis.from_url(url) as client:
            yield client
        return
    folder = Path(tempfile.mkdtemp(prefix="occ-bench-"))
    make_secret(folder)
    embedded.prepare_valkey(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(embedded.valkey_argv(folder), stdout=log, stderr=log)
    try:
        with redis.Redis.from_url(embedded.redis_url(folder)) as client:
            _await(client, process, folder / "log")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(runtime_dir(folder), ignore_errors=True)
        shutil.rmtree(folder)


def name_of(client: redis.Redis) -> str:
    """Return the name and the version of the server."""
    info = client.info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _await(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            client.ping()
            return
        except redis.RedisError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"valkey did not start:\n{log.read_text()}") from error
            time.sleep(0.02)


def with_server(client: redis.Redis, n_prime: int, repeat: int) -> list[Took]:
    """Time the routing and the counting of a file's chunks with sketches of ``n_prime`` registers."""
    namespace, rng = f"bench-{secrets.token_hex(8)}", np.random.default_rng(1)
    store = SketchStore(client, namespace, seed=1, base_n_prime=n_prime, tau=10)
    file = chunk_names(FILE_CHUNKS, rng)
    first = rng.integers(0, len(NODES), FILE_CHUNKS)
    add = {
        node_id: [chunk for chunk, start in zip(file, first, strict=True) if (node - start) % len(NODES) < REPLICAS]
        for node, node_id in enumerate(NODES)
    }
    # Each batch has new chunks, so no register fills up.
    batches = iter([chunk_names(FILE_CHUNKS, rng) for _ in range(repeat + 1)])
    held = [OTHER_CHUNKS + len(add[node_id]) for node_id in NODES]
    try:
        for node_id in NODES:
            build = store.open_shadow(node_id, 1, n_prime)
            store.fill_shadow(node_id, build, chunk_names(OTHER_CHUNKS, rng))
            store.swap_shadow(node_id, build)
        store.update(add)

        def route() -> None:
            found = store.lookup(NODES, file)
            candidates(found.counts.T, held, n_prime, 10, REPLICAS / len(NODES), 0.0)

        def count() -> None:
            store.update(dict.fromkeys(NODES[:REPLICAS], next(batches)))

        target, size = {10**4: "< 2", 10**6: "< 10", 10**7: "< 20"}.get(n_prime, ""), f"N' = {n_prime:,}"
        took = [
            timed(f"route a file of {FILE_CHUNKS:,} chunks over {len(NODES)} nodes, {size}", route, repeat, target),
            timed(f"count {FILE_CHUNKS:,} chunks on {REPLICAS} nodes in one round trip, {size}", count, repeat),
        ]
        used = [int(client.memory_usage(key) or 0) for key in client.scan_iter(f"{namespace}:*")]
        took.append(Took(f"memory of a node's sketch on the server, {size}", f"{max(used):,} bytes", "", "N' + 72"))
    finally:
        client.delete(*client.scan_iter(f"{namespace}:*"))
    return took


def by_itself(repeat: int) -> list[Took]:
    """Time the operations that need no server."""
    rng = np.random.default_rng(2)
    took = []
    for n_prime, target in ((10**4, "< 1"), (10**6, "")):
        sketches = [LCRS.from_registers(rng.poisson(0.15, n_prime), 10, 1) for _ in NODES]
        what = f"level counts of {len(NODES)} × {n_prime:,} registers"
        took.append(timed(what, partial(level_counts, sketches, 10), repeat, target))
    for sizes, name in (([2000] * 50, "of 2,000"), (rng.integers(100, 20_000, 50).tolist(), "of 100 to 20,000")):
        what = f"OCC union PMF, N = 100,000, 50 parties {name}"
        took.append(timed(what, partial(occ.union_pmf, 100_000, sizes), repeat, "< 100"))
    return took


def timed(what: str, action: Callable[[], object], repeat: int, target: str = "") -> Took:
    """Run ``action`` once to warm up, then ``repeat`` times; return the median and the largest time in milliseconds."""
    action()
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - begun))
    return Took(what, f"{statistics.median(times):.2f} ms", f"{max(times):.2f} ms", f"{target} ms" if target else "")
